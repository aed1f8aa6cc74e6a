"""Blurs and mask shapes that refiners and the gate share. Deterministic on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def gaussian_blur(image: Float[Tensor, "C H W"], sigma: float) -> Float[Tensor, "C H W"]:
    """Separable Gaussian of standard deviation ``sigma`` pixels; ``sigma`` <= 0 changes nothing.

    The kernel reaches 3 sigma, and at the border averages what is inside the image: repeating the border instead would
    count its pixels many times.
    """
    if sigma <= 0:
        return image
    return _averaging(image.shape[-2], sigma, image) @ image @ _averaging(image.shape[-1], sigma, image).T


def _averaging(size: int, sigma: float, like: Tensor) -> Float[Tensor, "size size"]:
    """Matrix whose rows are the truncated Gaussian around each pixel, each with sum one.

    Matrix products are several times faster here than convolutions, whose kernels have dozens of taps up close.
    """
    positions = torch.arange(size, device=like.device, dtype=like.dtype)
    offsets = positions[:, None] - positions
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2) * (offsets.abs() <= max(1, math.ceil(3 * sigma)))
    return weights / weights.sum(1, keepdim=True)


def masked_blur(image: Float[Tensor, "C H W"], mask: Bool[Tensor, "H W"], sigma: float) -> Float[Tensor, "C H W"]:
    """Gaussian average over the masked pixels only (normalised convolution); 0 where the kernel sees none of them."""
    inside = mask.to(image.dtype)[None]
    total = gaussian_blur(torch.where(mask, image, torch.zeros_like(image)), sigma)
    share = gaussian_blur(inside, sigma)
    return torch.where(share > 1e-4, total / share.clamp_min(1e-4), torch.zeros_like(total))


def opened(mask: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """3x3 morphological opening: what is thinner than three pixels goes. The image border does not erode the mask."""
    outside = (~mask).float()[None, None]
    eroded = 1 - F.max_pool2d(outside, 3, stride=1, padding=1)
    return F.max_pool2d(eroded, 3, stride=1, padding=1)[0, 0] > 0.5


def edge_distance(mask: Bool[Tensor, "H W"], limit: int) -> Int[Tensor, "H W"]:
    """Chessboard distance in pixels from the nearest unmasked pixel, at most ``limit``; 0 outside the mask.

    The image border is no edge: the mask is taken to go on beyond it.
    """
    outside = (~mask).float()[None, None]
    distance = mask.long()
    for _ in range(limit - 1):
        outside = F.max_pool2d(outside, 3, stride=1, padding=1)
        distance = distance + (outside[0, 0] < 0.5)
    return distance.clamp_max(limit)
