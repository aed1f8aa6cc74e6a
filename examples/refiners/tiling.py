# No weights: pictures of any size for an upscaling network.
"""Pictures as tensors, and a network over them in tiles: memory is bounded, whatever the picture's size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def shrunk(image: Image.Image, factor: float) -> Image.Image:
    """The picture ``factor`` times smaller, at least one pixel."""
    width, height = (max(1, round(side / factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> Tensor:
    """[1, 3, H, W] in [0, 1], float32."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def to_picture(image: Tensor) -> Image.Image:
    """The inverse; values are clamped. ValueError where a pixel is NaN or infinite."""
    if not bool(image.isfinite().all()):
        raise ValueError("the network gave NaN or infinite pixels")
    levels = (image[0].float().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def upscaled(network: Callable[[Tensor], Tensor], image: Tensor, scale: int, tile: int, margin: int) -> Tensor:
    """``network`` over [1, 3, H, W] -> [1, 3, scale H, scale W], tile by tile.

    Args:
        tile: side of what is kept of a call, pixels of ``image``.
        margin: pixels around it that the network is shown as well, and whose result is cut off.
    """
    height, width = image.shape[2:]
    result = image.new_zeros(1, 3, scale * height, scale * width)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            first, start = max(0, top - margin), max(0, left - margin)
            made = network(image[:, :, first : top + tile + margin, start : left + tile + margin])
            made = made[:, :, scale * (top - first) :, scale * (left - start) :]
            target = result[:, :, scale * top : scale * (top + tile), scale * left : scale * (left + tile)]
            target.copy_(made[:, :, : target.shape[2], : target.shape[3]])
    return result
