"""Between the views' pictures and what networks take and give."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.sizes import Tile, blend, cut, resized, tiles

MULTIPLE = 64
"""Sides of what a network sees, pixels: 8 in the VAE times 8 in the UNet."""
OVERLAP = 8
"""Neighbouring tiles share one part in so many of their side."""


def planes(image: Float[Tensor, "H W 3"]) -> Float[Tensor, "3 H W"]:
    """The picture as networks are given it: finite, float32, on the CPU."""
    return torch.nan_to_num(image).clamp(0, 1).permute(2, 0, 1).float().cpu()


def brought_back(made: Float[Tensor, "3 h w"], like: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
    """A network's picture at the size, in the type and on the device of the one that it was made from."""
    return resized(made.clamp(0, 1), like.shape[0], like.shape[1]).permute(1, 2, 0).contiguous().to(like)


def in_tiles(
    image: Float[Tensor, "3 h w"], size: int, scale: int, make: Callable[[Tensor], Tensor | str]
) -> Float[Tensor, "3 scale*h scale*w"] | str:
    """What ``make`` makes of ``image``, tile by tile where it is longer than ``size``; or why one tile has none.

    Args:
        image: of any size; tiles are padded to multiples of 64 pixels.
        size: longest side that the network sees, a multiple of 64.
        scale: how many times larger ``make`` gives back what it is given.
        make: gives a tile's picture, or one sentence.
    """
    height, width = image.shape[1:]
    windows = tiles(height, width, size, size // OVERLAP, MULTIPLE)
    pieces = []
    for tile in windows:
        made = make(cut(image, tile))
        if isinstance(made, str):
            return made
        if made.shape[1:] != (scale * tile.height, scale * tile.width):
            asked = f"{scale * tile.width} x {scale * tile.height}"
            return f"the network gave {made.shape[2]} x {made.shape[1]} pixels where {asked} were due"
        pieces.append(made)
    grown = [Tile(scale * t.top, scale * t.left, scale * t.height, scale * t.width) for t in windows]
    return blend(grown, pieces, scale * height, scale * width)


def size_fault(option: str, size: int) -> str | None:
    """What is wrong with the side of a network's pictures, in one line."""
    if size < MULTIPLE or size % MULTIPLE:
        return f"{option} must be a positive multiple of {MULTIPLE} pixels, not {size}"
    return None
