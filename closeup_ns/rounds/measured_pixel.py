"""The pixel of photographs that were shrunk, measured on their originals.

An original shows what a photograph's pixel was made of. Shrunk to the samples of the model's supersampled render it
needs one more filter to become the photograph; that filter is found by least squares, and with it the photograph's
pixel. No Gaussian is like it: photo tools shrink with kernels (Lanczos, bicubic) that keep more, and ring. Where native
views made the demo's model sharp, a Gaussian pixel of the best width renders far photographs at 31.1 dB, the measured
one at 32.5 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn

from closeup_ns.data.originals import Original
from closeup_ns.errors import DataError
from closeup_ns.model.kernel import PixelKernel, blurred_taps
from closeup_ns.progress import track
from closeup_ns.rounds.native import NATIVE_BLUR, cut, read_original
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import mean_of_numbers, psnr
from closeup_ns.views.view import View

PHOTOGRAPHS = 6
"""How many photographs are measured, evenly spread."""
REGION = 512
"""Longest side, in pixels, of the middle of a photograph that is measured."""
REACH = 2
"""How far the filter reaches, in pixels."""
ITERATIONS = 300
"""Of fitting the filter along one axis with that along the other held: they cost nothing."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture and what was made of it."""

    fine: Float[Tensor, "sH sW 3"]
    photograph: Float[Tensor, "H W 3"]
    counted: Bool[Tensor, "H W"]
    """Pixels that are compared: all that their filter reaches is the scene's and inside."""


def can_measure(run: Run) -> list[int]:
    """Indices of the photographs whose original has at least a pixel for each sample of the render."""
    if not (run.settings.kernel_search.enabled and run.settings.originals.enabled):
        return []
    samples = run.model.config.supersample
    return [i for i, original in enumerate(run.photographs.originals()) if original and original.finer >= samples]


def measure_pixel(run: Run) -> PixelKernel | None:
    """The pixel of the run's photographs; None where no original is fine enough, or none shows its photograph."""
    usable, supersample, eps2d = can_measure(run), run.model.config.supersample, run.model.config.eps2d
    originals, pairs, finer = run.photographs.originals(), [], 1.0
    chosen = usable[:: max(len(usable) // PHOTOGRAPHS, 1)][:PHOTOGRAPHS]
    for index in track(chosen, "measuring the pixel on originals"):
        original = originals[index]
        assert original is not None, "can_measure names those that have one"
        pair = _pair(run, index, original, supersample)
        if pair is not None:
            pairs.append(pair)
            finer = original.finer
    if not pairs:
        if usable:
            said = "not measured, no original shows its photograph where pixels count: it stays as it is"
            CONSOLE.print(f"[yellow]Pixel kernel: {said}", soft_wrap=True)
        return None
    taps = fit_taps(pairs, supersample)
    fit = mean_of_numbers(psnr(pixels(pair.fine, taps, supersample), pair.photograph, pair.counted) for pair in pairs)
    # What the original blurs itself, and the area of the samples that it was shrunk to, in squared samples.
    spread = 1 / 12 + NATIVE_BLUR * (supersample / finer) ** 2
    kernel = PixelKernel(min(eps2d, spread), supersample, 0.0, blurred_taps(taps, max(spread - eps2d, 0.0)))
    CONSOLE.print(
        f"Pixel kernel: [bold]variance {kernel.variance:.3f} px²[/bold], measured on {len(pairs)} originals "
        f"({fit:.1f} dB)"
    )
    return kernel


def fit_taps(pairs: Sequence[Pair], factor: int) -> list[float]:
    """The symmetric filter that turns finer pictures into photographs when their blocks are averaged after it.

    Args:
        factor: how many times finer the pictures are.

    Returns:
        Weights as `PixelKernel.taps` has them.
    """
    count = REACH * factor + 1
    normal, right = torch.zeros(count**2, count**2, dtype=torch.float64), torch.zeros(count**2, dtype=torch.float64)
    for pair in pairs:
        parts = [both for one in _reduced(pair.fine, factor, 0) for both in _reduced(one, factor, 1)]
        columns = torch.stack([part[pair.counted].flatten() for part in parts]).double()
        normal += columns @ columns.T
        right += columns @ pair.photograph.double()[pair.counted].flatten()
    # The filter is the same along both axes: fitted along one with the other held, until it is.
    normal, right = normal.reshape(count, count, count, count), right.reshape(count, count)
    taps = torch.zeros(count, dtype=torch.float64)
    taps[0] = 1.0
    for _ in range(ITERATIONS):
        rows = torch.einsum("ijkl,j,l->ik", normal, taps, taps), right @ taps
        columns = torch.einsum("ijkl,i,k->jl", normal, taps, taps), taps @ right
        fitted = [torch.linalg.lstsq(a, b[:, None]).solution[:, 0] for a, b in (rows, columns)]
        taps = (fitted[0] + fitted[1]) / 2
        taps = taps / (2 * taps.sum() - taps[0])
    return taps.tolist()


def pixels(fine: Float[Tensor, "sH sW C"], taps: Sequence[float], factor: int) -> Float[Tensor, "H W C"]:
    """A finer picture, filtered by ``taps`` along both axes and averaged by blocks of ``factor`` x ``factor``."""
    for axis in (0, 1):
        parts = _reduced(fine, factor, axis)[: len(taps)]
        fine = sum((weight * part for weight, part in zip(taps, parts, strict=True)), torch.zeros_like(parts[0]))
    return fine


def _pair(run: Run, index: int, original: Original, supersample: int) -> Pair | None:
    """The middle of a photograph and of its original, at ``supersample`` times its pixels.

    None where they disagree, or nothing counts.
    """
    data = run.photographs
    view, photograph, shown = data.train_view(index), data.photograph(index), data.shown(index)
    width, height = min(view.width, REGION), min(view.height, REGION)
    left, top = (view.width - width) // 2, (view.height - height) // 2
    K = view.K.clone()
    K[0, 2], K[1, 2] = K[0, 2] - left, K[1, 2] - top
    middle = View(K, view.c2w, width, height)
    try:
        whole, _ = read_original(data, original, middle, view, photograph)
    except DataError:
        return None  # named where its native views are cut
    fine = torch.from_numpy(cut(original, whole[..., :3], middle.scaled_to(width * supersample, height * supersample)))
    place = (slice(top, top + height), slice(left, left + width))
    hidden = torch.ones(height + 2 * REACH, width + 2 * REACH)
    hidden[REACH:-REACH, REACH:-REACH] = 0.0 if shown is None else (~shown[place]).float().cpu()
    counted = nn.functional.max_pool2d(hidden[None], 2 * REACH + 1, stride=1)[0] == 0
    return Pair(fine / 255, photograph[place].cpu(), counted) if bool(counted.any()) else None


def _reduced(image: Float[Tensor, "H W C"], factor: int, axis: int) -> list[Tensor]:
    """Means of ``factor`` pixels along ``axis``, for each distance that the filter reaches.

    Of ``image``, and then of the sums of its two copies moved by 1, 2, ... pixels; mirrored at the border.
    """
    reach = REACH * factor
    pads = [reach, reach, 0, 0] if axis == 1 else [0, 0, reach, reach]
    padded = nn.functional.pad(image.permute(2, 0, 1)[None], pads, mode="reflect")[0].permute(1, 2, 0)
    size = image.shape[axis]
    moved = [padded.narrow(axis, start, size) for start in range(2 * reach + 1)]
    sums = [moved[reach], *[moved[reach - k] + moved[reach + k] for k in range(1, reach + 1)]]
    return [part.unflatten(axis, (-1, factor)).mean(axis + 1) for part in sums]
