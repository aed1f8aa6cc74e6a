"""The pixel of a capture: what lies between the scene and a photograph's numbers.

Each Gaussian is widened a little on the screen (``eps2d``, Mip-Splatting's 2D filter); the image is rendered larger,
and each pixel sums the samples under a window: its own area, and what lens and resizing spread beyond it. Widening
alone is what gsplat offers, but it fades small Gaussians and blurs before occlusion instead of after it; a render that
is blurred as a whole recovers more of the detail that many photographs share.

The window is measured where a photograph has an original, which shows what was blurred; else it is a Gaussian, whose
variance is found by cross-validation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup_ns.rendering.gather import can_gather, gather_pixels

MOST_TAPS = 13
"""Most weights of `PixelKernel.taps`."""
KERNEL_SIZE = 3 + MOST_TAPS
"""Numbers that a kernel takes in a checkpoint."""


@dataclass(frozen=True)
class PixelKernel:
    """The pixel that a model was trained with, and is therefore rendered with by every command."""

    eps2d: float
    """Variance that each Gaussian is widened by, in squared pixels of the (supersampled) render."""
    supersample: int
    """The render is this many times larger per axis than the image."""
    lens_blur: float
    """Variance of a Gaussian blur of the averaged image, in squared pixels of the image."""
    taps: tuple[float, ...] = (1.0,)
    """Blur of the render before it is averaged, along each axis: weights of a sample and of its neighbours at a
    distance of 1, 2, ... samples on either side. Their sum over both sides is 1."""

    @staticmethod
    def of(variance: float, supersample: int = 1, eps2d: float = math.inf) -> PixelKernel:
        """A pixel of total ``variance`` in squared image pixels; Gaussians are widened by at most ``eps2d`` of it."""
        widening = min(eps2d, variance * supersample**2)
        return PixelKernel(widening, supersample, variance - widening / supersample**2)

    @staticmethod
    def from_tensor(values: Float[Tensor, "K"]) -> PixelKernel:
        """The kernel that `to_tensor` wrote."""
        eps2d, supersample, lens_blur, *taps = values.tolist()
        while len(taps) > 1 and taps[-1] == 0:
            taps.pop()
        return PixelKernel(eps2d, int(supersample), lens_blur, tuple(taps))

    def to_tensor(self) -> Float[Tensor, "K"]:
        """As numbers, for a checkpoint: always ``KERNEL_SIZE`` of them."""
        values = torch.zeros(KERNEL_SIZE)
        parts = [self.eps2d, float(self.supersample), self.lens_blur, *self.taps]
        values[: len(parts)] = torch.tensor(parts)
        return values

    @property
    def variance(self) -> float:
        """Widening and blur together, in squared pixels of the image (the area's own 1/12 is not counted)."""
        spread = 2 * sum(weight * distance**2 for distance, weight in enumerate(self.taps))
        return (self.eps2d + spread) / self.supersample**2 + self.lens_blur

    def unwidened(self) -> PixelKernel:
        """The same pixel for primitives that cannot be widened: that part blurs the image instead."""
        if len(self.taps) == 1:
            return PixelKernel.of(self.variance, self.supersample, eps2d=0.0)
        return PixelKernel(0.0, self.supersample, self.lens_blur, blurred_taps(self.taps, self.eps2d))

    def window(self, height: int, width: int) -> Float[Tensor, "T"]:
        """Weights of the samples of a pixel and of those around it, along either axis, in float64; their sum is 1.

        Args:
            height, width: of the image in pixels; the window reaches across no more than that.
        """
        reach = blur_reach(self.lens_blur, height, width)
        spread = torch.zeros(2 * reach * self.supersample + 1, dtype=torch.float64)
        spread[:: self.supersample] = gaussian_taps(self.lens_blur, reach)
        area = torch.full((self.supersample,), 1 / self.supersample, dtype=torch.float64)
        window = convolved(convolved(area, both_sides(self.taps)), spread)
        too_far = max((len(window) - self.supersample) // 2 - (min(height, width) * self.supersample - 1), 0)
        window = window[too_far : len(window) - too_far]
        return window / window.sum()

    def gather(
        self, render: Float[Tensor, "sH sW C"], alpha: Float[Tensor, "sH sW 1"]
    ) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W 1"]]:
        """Colour (3 channels), optional expected z-depth, and opacity per pixel from a supersampled render.

        Depth is averaged over what is opaque, as expected depth is, and not blurred: a lens blurs light, not surfaces.
        """
        height, width = (side // self.supersample for side in render.shape[:2])
        window = self.window(height, width)
        if len(window) == 1 and render.shape[-1] == 3:
            return render, alpha
        if can_gather(render, alpha):
            return gather_pixels(render, alpha, self.supersample, window.float())
        summed = apply_window(torch.cat([render[..., :3], alpha], -1), window, self.supersample)
        averaged = box_average(torch.cat([render[..., 3:] * alpha, alpha], -1), self.supersample)
        depth = averaged[..., :-1] / averaged[..., -1:].clamp_min(1e-10)
        return torch.cat([summed[..., :3], depth], -1), summed[..., 3:]


def both_sides(taps: Sequence[float]) -> Float[Tensor, "T"]:
    """A symmetric filter in float64 from its weights from the middle outwards."""
    half = torch.tensor(taps, dtype=torch.float64)
    return torch.cat([half.flip(0)[:-1], half])


def convolved(first: Float[Tensor, "A"], second: Float[Tensor, "B"]) -> Float[Tensor, "A+B-1"]:
    """Two symmetric filters, one after the other."""
    return nn.functional.conv1d(first[None, None], second[None, None], padding=len(second) - 1)[0, 0]


def blurred_taps(taps: Sequence[float], variance: float) -> tuple[float, ...]:
    """``taps`` after a Gaussian blur of ``variance`` squared samples, as `PixelKernel.taps`; at most `MOST_TAPS`."""
    filtered = convolved(both_sides(taps), gaussian_taps(variance, math.ceil(3 * math.sqrt(variance))))
    half = filtered[len(filtered) // 2 :][:MOST_TAPS]
    return tuple((half / (2 * half.sum() - half[0])).tolist())


def apply_window(image: Float[Tensor, "sH sW C"], window: Float[Tensor, "T"], factor: int) -> Float[Tensor, "H W C"]:
    """Sums under a separable ``window`` around blocks of ``factor`` x ``factor`` samples; mirrored at the border."""
    reach, channels = (len(window) - factor) // 2, image.shape[-1]
    height, width = (side // factor * factor for side in image.shape[:2])
    inside = image[:height, :width].permute(2, 0, 1)[None]
    padded = nn.functional.pad(inside, (reach, reach, reach, reach), mode="reflect") if reach else inside
    weights = window.to(image)
    rows = nn.functional.conv2d(
        padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), stride=(factor, 1), groups=channels
    )
    pixels = nn.functional.conv2d(
        rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), stride=(1, factor), groups=channels
    )
    return pixels[0].permute(1, 2, 0)


def box_average(image: Float[Tensor, "sH sW C"], factor: int) -> Float[Tensor, "H W C"]:
    """Mean of each ``factor`` x ``factor`` block."""
    if factor == 1:
        return image
    return nn.functional.avg_pool2d(image.permute(2, 0, 1), factor).permute(1, 2, 0)


def blur_reach(variance: float, height: int, width: int) -> int:
    """How many pixels a blur of ``variance`` squared pixels reaches to each side: three sigma, inside the image."""
    return min(max(1, math.ceil(3 * math.sqrt(variance))), min(height, width) - 1) if variance > 0 else 0


@functools.lru_cache(maxsize=16)
def gaussian_taps(variance: float, reach: int) -> Float[Tensor, "2*reach+1"]:
    """Weights of a Gaussian of ``variance`` squared pixels, integrated over each tap, in float64; their sum is 1."""
    if reach == 0:
        return torch.ones(1, dtype=torch.float64)
    edges = torch.arange(-reach, reach + 2, dtype=torch.float64) - 0.5
    taps = torch.special.ndtr(edges / math.sqrt(variance)).diff()
    return taps / taps.sum()
