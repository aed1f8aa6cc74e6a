"""What a photograph says about a close-up: an average over its own, larger pixels, and nothing finer.

Coming ``s`` times closer, one pixel of a photograph covers s x s pixels of the view (its *footprint*). So its colour
must never be compared with a single pixel of a sharp picture, nor pasted over one: a perfect close-up would look wrong
to such a comparison and become blurred by such a paste. A picture is first seen as the photograph would have seen it
(``as_photographed``), and what differs is taken back into it at that same scale (``consistent``, iterative
back-projection: Irani and Peleg 1991), which leaves the finer detail alone. At a footprint of one pixel both are
the plain comparison and the plain paste of [33] and of the paper's section 4.3.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.filters import gaussian_blur

PHOTOGRAPH_VARIANCE = 0.2
"""Blur of a photograph, px^2 of its own: lens, sensor and resize of a usual camera (docs/quality.md)."""
ITERATIONS = 3
"""Back-projection steps: the first leaves about a tenth of a smooth difference, the third nothing that 8 bits show."""
_FINEST, _STEP = 0.125, 2.0
"""Variances (px^2) at which a picture is blurred: nothing, the finest, and each ``_STEP`` times the one before."""


def blur_variance(footprint: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """Variance (px^2 of the view) of the blur between a view and a photograph whose pixel covers ``footprint`` of its
    pixels in each direction. The view's own pixel has the blur of a photograph at footprint 1: nothing is left there.
    """
    return PHOTOGRAPH_VARIANCE * (footprint.clamp_min(1).square() - 1)


def as_photographed(image: Float[Tensor, "C H W"], footprint: Float[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """``image`` blurred at each pixel as far as photographs with these footprints (pixels of the image) would.

    A pixel's blur is mixed from the two nearest of a ladder of Gaussians so that its variance is exact.
    """
    seen = torch.zeros_like(image)
    for variance, share in _ladder(blur_variance(footprint)):
        seen = seen + share * gaussian_blur(image, math.sqrt(variance))
    return seen


def spread(
    residual: Float[Tensor, "C H W"], mask: Bool[Tensor, "H W"], footprint: Float[Tensor, "H W"]
) -> Float[Tensor, "C H W"]:
    """Each masked pixel's ``residual`` over its footprint; averaged where footprints overlap, fading out beyond."""
    total = torch.zeros_like(residual)
    weight = residual.new_zeros(1, *mask.shape)
    for variance, share in _ladder(blur_variance(footprint)):
        share, sigma = share * mask, math.sqrt(variance)
        mass = _mass(sigma)
        total = total + mass * gaussian_blur(residual * share, sigma)
        weight = weight + mass * gaussian_blur(share[None], sigma)
    return total / weight.clamp_min(1)


def consistent(
    image: Float[Tensor, "C H W"],
    color: Float[Tensor, "C H W"],
    mask: Bool[Tensor, "H W"],
    footprint: Float[Tensor, "H W"],
    iterations: int = ITERATIONS,
) -> Float[Tensor, "C H W"]:
    """``image`` with the least change, at the scale of the photographs, that makes it look like them where they see it.

    Args:
        image: any picture of the view, in [0, 1].
        color: what photographs show where ``mask``.
        mask: the reliable pixels.
        footprint: side of the photograph's pixel there, pixels of the view; 1 or less is a plain paste.
    """
    known = torch.where(mask, color, torch.zeros_like(color))
    for _ in range(iterations):
        remaining = torch.where(mask, known - as_photographed(image, footprint), torch.zeros_like(known))
        image = image + spread(remaining, mask, footprint)
    return image.clamp(0, 1)


def _ladder(variance: Float[Tensor, "H W"]) -> Iterator[tuple[float, Float[Tensor, "H W"]]]:
    """Variances of a few Gaussians, and each one's share [H, W] in every pixel's blur. Shares add up to one."""
    if variance.numel() == 0:
        return
    least, most = (float(value) for value in variance.aminmax())
    below, here = -math.inf, 0.0
    while below < most or here == 0:
        above = max(_STEP * here, _FINEST)
        if above > least:
            rising = (variance - below) / (here - below) if below >= 0 else torch.ones_like(variance)
            falling = (above - variance) / (above - here)
            share = torch.minimum(rising, falling).clamp(0, 1)
            yield here, share
        below, here = here, above


def _mass(sigma: float) -> float:
    """Sum of the samples of a two-dimensional Gaussian whose peak is one: its average times this peaks at one."""
    if sigma <= 0:
        return 1.0
    reach = max(1, math.ceil(3 * sigma))
    return sum(math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-reach, reach + 1)) ** 2
