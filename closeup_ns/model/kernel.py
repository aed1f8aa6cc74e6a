"""The pixel of a capture: what lies between the scene and a photograph's numbers.

Three blurs make it up. Each Gaussian is widened a little on the screen (``eps2d``, Mip-Splatting's 2D filter), the
image is rendered larger and averaged (the pixel has an area), and the composited image is blurred (the lens, and the
resizing of the photographs). Widening alone is what gsplat offers, but it fades small Gaussians and blurs before
occlusion instead of after it; a render that is blurred as a whole recovers more of the detail that many photographs
share.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup_ns.rendering.gather import can_gather, gather_pixels


@dataclass(frozen=True)
class PixelKernel:
    """The pixel that a model was trained with, and is therefore rendered with by every command."""

    eps2d: float
    """Variance that each Gaussian is widened by, in squared pixels of the (supersampled) render."""
    supersample: int
    """The render is this many times larger per axis than the image."""
    lens_blur: float
    """Variance of the blur of the averaged image, in squared pixels of the image."""

    @staticmethod
    def of(variance: float, supersample: int = 1, eps2d: float = math.inf) -> PixelKernel:
        """A pixel of total ``variance`` in squared image pixels; Gaussians are widened by at most ``eps2d`` of it."""
        widening = min(eps2d, variance * supersample**2)
        return PixelKernel(widening, supersample, variance - widening / supersample**2)

    @property
    def variance(self) -> float:
        """Widening and blur together, in squared pixels of the image (the area's own 1/12 is not counted)."""
        return self.eps2d / self.supersample**2 + self.lens_blur

    def gather(
        self, render: Float[Tensor, "sH sW C"], alpha: Float[Tensor, "sH sW 1"]
    ) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W 1"]]:
        """Colour (3 channels), optional expected z-depth, and opacity per pixel from a supersampled render.

        Depth is averaged over what is opaque, as expected depth is, and not blurred: a lens blurs light, not surfaces.
        """
        height, width = (side // self.supersample for side in render.shape[:2])
        reach = blur_reach(self.lens_blur, height, width)
        if self.supersample == 1 and reach == 0 and render.shape[-1] == 3:
            return render, alpha
        if can_gather(render, alpha):
            return gather_pixels(render, alpha, self.supersample, gaussian_taps(self.lens_blur, reach).float())
        mean_alpha = box_average(alpha, self.supersample)
        color = box_average(render[..., :3], self.supersample)
        depth = box_average(render[..., 3:] * alpha, self.supersample) / mean_alpha.clamp_min(1e-10)
        if self.lens_blur > 0:
            blurred = gaussian_blur(torch.cat([color, mean_alpha], -1), self.lens_blur)
            color, mean_alpha = blurred[..., :3], blurred[..., 3:]
        return torch.cat([color, depth], -1), mean_alpha


def box_average(image: Float[Tensor, "sH sW C"], factor: int) -> Float[Tensor, "H W C"]:
    """Mean of each ``factor`` x ``factor`` block."""
    if factor == 1:
        return image
    if image.shape[-1] == 0:  # avg_pool2d refuses images without channels
        return image[::factor, ::factor]
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


def gaussian_blur(image: Float[Tensor, "H W C"], variance: float) -> Float[Tensor, "H W C"]:
    """Separable Gaussian blur of ``variance`` squared pixels, integrated over each tap; mirrored at the border."""
    reach = blur_reach(variance, *image.shape[:2])
    if reach < 1:
        return image
    taps = gaussian_taps(variance, reach).to(image)
    channels = image.shape[-1]
    padded = nn.functional.pad(image.permute(2, 0, 1)[None], (reach, reach, reach, reach), mode="reflect")
    rows = nn.functional.conv2d(padded, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    columns = nn.functional.conv2d(rows, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return columns[0].permute(1, 2, 0)
