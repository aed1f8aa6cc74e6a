"""Native views: pinhole crops around the target, cut from the originals through their lenses (issue 11.2).

In round t a photograph that sees the target gives a view of ``1 / zoom^t`` of its field with as many pixels as a
training photograph, or as many as the original has there, whichever is fewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from closeup_ns.data.originals import Original
from closeup_ns.errors import DataError
from closeup_ns.planning.target import Target
from closeup_ns.progress import bar
from closeup_ns.rounds.run import Photographs, Run
from closeup_ns.rounds.store.native import CutView, NativeStore
from closeup_ns.rounds.views import NativeView
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at, move_closer
from closeup_ns.views.warp import backproject, inside, pixel_grid, project, sample

NEW_DETAIL = 1.2
"""A round has native views where the originals are at least so many times finer than what the round before it cut."""
HIDDEN = 0.1
"""A photograph does not see the target if the model's depth there is nearer by more than this share."""
FEWEST_PIXELS = 32
"""Shorter side, pixels, of a crop that is worth a training step."""
REMAP_ROWS = 256
"""Rows of a crop that are resampled at a time, so that memory does not grow with the crop."""


WINDOWS = 4
"""Most crops of one photograph in a round."""
WINDOW_DETAIL = 2.0
"""A further window is cut where a camera that went so near draws it with this many times the photograph's pixels along
each axis: of what lies farther behind the target the photograph itself shows enough."""
NEAR_SIZE = 64
"""Longer side, pixels, at which that camera is rendered."""
NATIVE_BLUR = 0.6
"""Variance in squared native pixels of what a camera blurs beside its pixel's area: lens, demosaicing, JPEG."""
SAME_PICTURE = 0.7
"""Least correlation between an original and its photograph; copies of one picture have 0.95 and more."""
LARGEST_SHIFT = 1
"""Most pixels of the photograph that an original may lie beside it."""
FLAT = 0.01
"""A photograph whose colours differ by less (standard deviation, of 1) shows nothing that could be compared."""


def native_rounds(finer: float, zoom: float, rounds: int) -> int:
    """How many rounds have native detail that no round before them had, for originals ``finer`` times finer.

    Round t cuts ``1 / zoom^t`` of the field. Once a round's crops have all of the original's pixels, a narrower crop
    of the same pixels says nothing new.
    """
    return sum(finer >= NEW_DETAIL * zoom ** (number - 1) for number in range(1, rounds + 1))


def plan_crops(
    views: Sequence[View],
    originals: Sequence[Original | None],
    target: Float[Tensor, "3"],
    zoom: float,
    render: Renderer,
    windows: int = 1,
) -> list[tuple[int, View]]:
    """The crops of a round, of each photograph that sees the target and has an original.

    Args:
        views: the photographs' cameras as they are trained on.
        originals: what each was shrunk from.
        target: world coordinates.
        zoom: how many times narrower than a photograph the crop is.
        render: the model, whose depth tells whether something hides the target.
        windows: most crops of a photograph: the one around the target, then those that `further_windows` finds.

    Returns:
        The photograph's index, and the crop's pinhole camera in the photograph's pose.
    """
    crops = []
    for index, (view, original) in enumerate(zip(views, originals, strict=True)):
        if original is None or not sees(view, target, render):
            continue
        center, _ = project(view, target.to(view.c2w))
        further = further_windows(view, target, zoom, render) if windows > 1 else []
        centers = [center, *further[: windows - 1]]
        found = [crop_view(view, place, zoom, original) for place in centers]
        crops += [(index, crop) for crop in found if min(crop.width, crop.height) >= FEWEST_PIXELS]
    return crops


@torch.no_grad()
def further_windows(view: View, target: Float[Tensor, "3"], zoom: float, render: Renderer) -> list[Float[Tensor, "2"]]:
    """Where beside the window around ``target`` a camera that came ``zoom`` times nearer looks, most seen first.

    A camera that comes nearer sees more of what lies behind the target than a crop does. Its pixels are carried to the
    photograph by the model's depth, those that something hides there are left out, and the others are counted in
    windows of a crop's size beside the first.

    Returns:
        Centres (column, row) in the photograph.
    """
    near = aim_at(move_closer(view, target, zoom), target).resized(NEAR_SIZE)
    rendered = render(near)
    points = backproject(near, rendered.depth)[rendered.depth > 0]
    uv, z = project(view, points)
    small = view.resized(NEAR_SIZE)
    depth = sample(render(small).depth[None], uv * (small.width / view.width), "nearest")[0]
    shown = inside(view, uv, z) & (z <= (1 + HIDDEN) * depth)
    center, _ = project(view, target.to(view.c2w))
    size = uv.new_tensor([view.width, view.height]) / zoom
    half = size / 2
    center = torch.minimum(torch.maximum(center, half), uv.new_tensor([view.width, view.height]) - half)
    windows, counts = ((uv[shown] - center) / size).round().long().unique(dim=0, return_counts=True)
    order = counts.argsort(descending=True, stable=True).tolist()
    enough = (WINDOW_DETAIL / zoom) ** 2 * near.width * near.height
    return [center + windows[i] * size for i in order if windows[i].any() and int(counts[i]) >= enough]


def sees(view: View, target: Float[Tensor, "3"], render: Renderer) -> bool:
    """Whether ``target`` is inside the image and the model renders nothing well in front of it."""
    uv, z = project(view, target.to(view.c2w))
    if not bool(inside(view, uv, z)):
        return False
    small = view.resized(128)
    column, row = (uv * uv.new_tensor([small.width / view.width, small.height / view.height])).long().tolist()
    depth = render(small).depth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
    solid = depth[depth > 0]
    return solid.numel() == 0 or float(solid.median()) >= (1 - HIDDEN) * float(z)


def crop_view(view: View, center: Float[Tensor, "2"], zoom: float, original: Original) -> View:
    """The pinhole view of ``1 / zoom`` of a photograph's field around ``center``, moved inside the photograph.

    Args:
        view: the photograph's camera as it is trained on.
        center: (column, row) in the photograph.
        zoom: at least 1.
        original: its pixels are counted at the middle of the crop.
    """
    width, height = view.width / zoom, view.height / zoom
    left = min(max(float(center[0]) - width / 2, 0.0), view.width - width)
    top = min(max(float(center[1]) - height / 2, 0.0), view.height - height)
    density = _density(view, (left + width / 2, top + height / 2), original)
    scale = min(zoom, density)  # crop pixels per pixel of the photograph
    across, down = max(round(width * scale), 1), max(round(height * scale), 1)
    sx, sy = across / width, down / height
    K = view.K.double().clone()
    K[0, 2], K[1, 2] = K[0, 2] - left, K[1, 2] - top
    K = K * K.new_tensor([[sx], [sy], [1.0]])
    return View(K.to(view.K), view.c2w, across, down)


def cut(original: Original, pixels: npt.NDArray[np.uint8], view: View) -> npt.NDArray[np.uint8]:
    """The pixels [H, W, C] of ``view``, a pinhole view in the original's pose, in one resampling through the lens.

    Each pixel is the mean of k x k bicubic samples, no farther apart than the original's pixels: an area average where
    the crop is coarser than the original.
    """
    samples = max(1, math.ceil(_spacing(original, view) - 1e-3))
    rows = []
    for top in range(0, view.height, REMAP_ROWS):
        bottom = min(top + REMAP_ROWS, view.height)
        places = _places(original, view, top, bottom, samples)
        fine = cv2.remap(
            pixels, places[..., 0], places[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ).reshape(bottom - top, samples, view.width, samples, -1)
        rows.append(fine.mean(axis=(1, 3), dtype=np.float32) if samples > 1 else fine[:, 0, :, 0])
    return np.concatenate(rows).round().clip(0, 255).astype(np.uint8)


def cut_mask(original: Original, mask: npt.NDArray[np.uint8], view: View) -> npt.NDArray[np.bool_]:
    """Pixels [H, W] of ``view`` that a mask [h, w] of the photograph, at any size, lets count as a whole.

    A pixel that reaches into what the mask hides does not count, nor does one outside of the photograph.
    """
    width, height = original.size
    scaled = cv2.resize((mask > 0).astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_NEAREST)
    reach = 2 * math.ceil(_spacing(original, view)) + 3
    shrunk = cv2.erode(scaled, np.ones((reach, reach), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    places = _places(original, view, 0, view.height, 1)
    return cv2.remap(shrunk, places[..., 0], places[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT) > 0


def cut_native_views(run: Run, store: NativeStore, number: int, targets: Sequence[Target]) -> list[NativeView]:
    """The native views of round ``number``; cut from the originals where the store does not hold them yet.

    Empty where originals are switched off, or none is fine enough to say something that the round before did not.

    Raises:
        RoundStorageError: they cannot be written, or are there and cannot be read.
    """
    data, zoom = run.photographs, run.settings.schedule.zoom
    names, originals = data.photograph_names(), data.originals()
    if not store.has(number):
        if not run.settings.originals.enabled:
            return []
        useful = [
            original if original is not None and native_rounds(original.finer, zoom, number) == number else None
            for original in originals
        ]
        views = data.train_views()
        crops = [
            crop
            for target in targets
            for crop in plan_crops(views, useful, target.point, zoom**number, run.render, WINDOWS)
        ]
        if not crops:
            return []
        crops.sort(key=lambda crop: crop[0])
        with bar(f"round {number}: cutting originals", len(crops)) as advance:
            store.save(number, _cut_all(run, crops, advance))
    return store.load(number, names)


def native_variance(views: Sequence[NativeView]) -> float:
    """Variance in px^2 of the pixel of a round's native views: the camera's own blur, at the crops' scale.

    Not by cross-validation at the crops' own scale: a wider pixel always scores better there, because it forgives what
    is misaligned, and leaves rings for whoever comes closer (docs/quality.md).
    """
    spacing = float(torch.tensor([view.spacing for view in views]).median())
    return NATIVE_BLUR / max(spacing, 1.0) ** 2


def _cut_all(run: Run, crops: Sequence[tuple[int, View]], advance: Callable[[], None]) -> Iterator[CutView]:
    """Cut ``crops``, sorted by photograph: each original is decoded once, and one at a time is in memory.

    An original that cannot be decoded or shows another picture costs its own crops and is named.
    """
    data = run.photographs
    names, originals = data.photograph_names(), data.originals()
    decoded, picture = -1, None
    for position, (index, view) in enumerate(crops):
        run.give_way()
        original = originals[index]
        assert original is not None, "a crop is planned only where there is an original"
        if index != decoded:
            decoded, picture = index, None
            try:
                picture = read_original(data, original, view, data.train_view(index), data.photograph(index))
            except DataError as error:
                CONSOLE.print(f"[yellow]No native view of {escape(f'{names[index]}: {error}')}", soft_wrap=True)
        if picture is not None:
            pixels, mask = picture
            counted = None if mask is None else cut_mask(original, mask, view)
            image, spacing = cut(original, pixels, view), _spacing(original, view)
            yield CutView(names[index], f"{position:04d}", view, image, counted, spacing)
        advance()


def read_original(
    data: Photographs, original: Original, crop: View, view: View, photograph: Float[Tensor, "H W 3"]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Pixels and mask as `Original.read` gives them, of an original that shows ``photograph`` where ``crop`` is cut.

    Both are compared before the background at the photograph's pixels: correlated at every shift of a few of them.

    Raises:
        DataError: it cannot be decoded, shows another picture, or the same in another place.
    """
    pixels, mask = original.read()
    scale = float(crop.K[0, 0] / view.K[0, 0])
    left, top = (round(float(view.K[i, 2] - crop.K[i, 2] / scale)) for i in (0, 1))
    width, height = max(int(crop.width / scale), 8), max(int(crop.height / scale), 8)
    left, top = min(max(left, 0), view.width - width), min(max(top, 0), view.height - height)
    K = view.K.clone()
    K[0, 2], K[1, 2] = K[0, 2] - left, K[1, 2] - top
    small = torch.from_numpy(cut(original, pixels, View(K, view.c2w, width, height)))
    wanted = photograph[top : top + height, left : left + width].mean(-1).cpu().double()
    found = data.before_background(small).double().mean(-1)
    wanted, found = wanted - wanted.mean(), found - found.mean()
    if float(wanted.std()) < FLAT:
        return pixels, mask
    spectrum = torch.fft.rfft2(found) * torch.fft.rfft2(wanted).conj()
    correlation = torch.fft.irfft2(spectrum, s=found.shape) / (found.norm() * wanted.norm()).clamp_min(1e-12)
    row, column = divmod(int(correlation.argmax()), width)
    row, column = (row + height // 2) % height - height // 2, (column + width // 2) % width - width // 2
    if float(correlation.max()) < SAME_PICTURE:
        likeness = f"correlation {float(correlation.max()):.2f}"
        raise DataError(f"its original {original.path} shows another picture ({likeness})")
    if max(abs(row), abs(column)) > LARGEST_SHIFT:
        raise DataError(f"its original {original.path} lies {column}, {row} pixels (columns, rows) beside it")
    return pixels, mask


def _places(original: Original, view: View, top: int, bottom: int, samples: int) -> npt.NDArray[np.float32]:
    """Where the sub-samples of rows ``top`` to ``bottom`` of ``view`` lie in the original, with centres at 0 (cv2)."""
    offset = torch.tensor([0.0, top], dtype=torch.float64)
    fine = pixel_grid((bottom - top) * samples, view.width * samples, dtype=torch.float64) / samples + offset
    return (_in_original(original, view, fine) - 0.5).float().numpy()


def _in_original(original: Original, view: View, uv: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
    """Pixel coordinates in the original (float64, centres at +0.5) of pixel coordinates ``uv`` of a pinhole view."""
    K, K_original = view.K.double().cpu(), torch.tensor(original.K, dtype=torch.float64)
    xy = (uv - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    return original.lens.distort(xy) * torch.stack([K_original[0, 0], K_original[1, 1]]) + K_original[:2, 2]


def _density(view: View, place: tuple[float, float], original: Original) -> float:
    """Pixels of the original per pixel of ``view`` at ``place``, along each axis, the geometric mean of both."""
    u, v = place
    corners = torch.tensor([[u - 0.5, v], [u + 0.5, v], [u, v - 0.5], [u, v + 0.5]], dtype=torch.float64)
    left, right, upper, lower = _in_original(original, view, corners)
    across, down = right - left, lower - upper
    return float((across[0] * down[1] - across[1] * down[0]).abs().sqrt())


def _spacing(original: Original, view: View) -> float:
    """How many pixels of the original lie between two neighbouring pixels in the middle of ``view``."""
    return _density(view, (view.width / 2, view.height / 2), original)
