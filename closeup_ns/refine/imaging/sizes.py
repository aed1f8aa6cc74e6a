"""Pictures of any size for networks that know one square size: enlarged and tiled, never squashed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Padding = Literal["reflect", "replicate"]
VAE_SCALE_FACTOR = 8
"""Pixels of a picture for each of its latent, in each direction: what the VAE shrinks by."""


@dataclass(frozen=True)
class Tile:
    """A window of a picture, in pixels. It may reach beyond the picture's border."""

    top: int
    left: int
    height: int
    width: int


def cut(image: Shaped[Tensor, "*C H W"], tile: Tile, mode: Padding = "reflect") -> Shaped[Tensor, "*C h w"]:
    """What ``tile`` shows of ``image``; beyond the border the picture is mirrored or its edge repeated."""
    rows = _indices(tile.top, tile.height, image.shape[-2], mode).to(image.device)
    columns = _indices(tile.left, tile.width, image.shape[-1], mode).to(image.device)
    return image.index_select(-2, rows).index_select(-1, columns)


def _indices(start: int, count: int, length: int, mode: Padding) -> Int[Tensor, "count"]:
    """Which of ``length`` pixels are at ``start``, ``start + 1``, ... of the endlessly continued line.

    Mirrored about the outermost pixel's centre, as often as needed: a line of one pixel is repeated.
    """
    position = torch.arange(start, start + count)
    if mode == "replicate" or length == 1:
        return position.clamp(0, length - 1)
    folded = position % (2 * length - 2)
    return torch.minimum(folded, 2 * length - 2 - folded)


def resized(image: Float[Tensor, "C H W"], height: int, width: int) -> Float[Tensor, "C height width"]:
    """``image`` in [0, 1], bicubic with a filter that grows when it is shrunk, so that nothing aliases."""
    if tuple(image.shape[-2:]) == (height, width):
        return image
    scaled = F.interpolate(image[None], (height, width), mode="bicubic", align_corners=False, antialias=True)
    return scaled[0].clamp(0, 1)


def tiles(height: int, width: int, size: int, overlap: int) -> list[Tile]:
    """Squares of ``size`` pixels that cover a picture, row by row, evenly spread.

    Neighbours share at least ``overlap`` pixels. Squares start at whole latent pixels, so the last one reaches beyond
    the border by less than a latent pixel: see ``cut``.

    Args:
        height, width: of the picture; neither is below ``size``.
        size: side of the squares, a multiple of `VAE_SCALE_FACTOR`.
        overlap: at most ``size`` minus `VAE_SCALE_FACTOR`.
    """
    return [
        Tile(top, left, size, size) for top in _starts(height, size, overlap) for left in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    """Where the squares begin along one side."""
    latent_pixels = -((size - length) // VAE_SCALE_FACTOR)
    longest = (size - overlap) // VAE_SCALE_FACTOR
    steps = -(-latent_pixels // longest)
    # Rounding down keeps every step at or below the longest, because that is a whole number.
    return [index * latent_pixels // steps * VAE_SCALE_FACTOR if steps else 0 for index in range(steps + 1)]


def blend(
    tiles: Sequence[Tile],
    images: Sequence[Float[Tensor, "C h w"]],
    height: int,
    width: int,
    feather: int,
) -> Float[Tensor, "C height width"]:
    """The picture that ``tiles`` make together: a smooth change from each to the next in the middle of their overlap.

    The weights of the windows sum to one at every pixel, so pieces of one picture give that picture back.

    Args:
        tiles: all that ``tiles`` gave.
        images: what each of them shows, at its size.
        height, width: the picture's; what reaches beyond is cut off.
        feather: pixels over which the change happens; the whole overlap where that is shorter. Generated pictures that
            differ look blurred where they are mixed, so wide overlaps should not be mixed throughout.
    """
    down = _windows({(tile.top, tile.height) for tile in tiles}, height, feather)
    across = _windows({(tile.left, tile.width) for tile in tiles}, width, feather)
    result = images[0].new_zeros(images[0].shape[0], height, width)
    for tile, image in zip(tiles, images, strict=True):
        weight = down[tile.top, tile.height][:, None] * across[tile.left, tile.width]
        shown = image[:, : height - tile.top, : width - tile.left] * weight.to(image)
        result[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += shown
    return result


def _windows(spans: set[tuple[int, int]], length: int, feather: int) -> dict[tuple[int, int], Float[Tensor, "n"]]:
    """The weight of each span's pixels along one side of ``length`` pixels; they sum to one."""
    ordered = sorted(spans)
    position = torch.arange(length, dtype=torch.float64) + 0.5
    # How far the change from each span to the next has come: 0 before their common pixels' middle, 1 after it.
    changes = []
    for (start, count), (following, _) in itertools.pairwise(ordered):
        shared = start + count - following
        ramp = max(1, min(feather, shared))
        reached = ((position - (following + 0.5 * shared)) / ramp + 0.5).clamp(0, 1)
        changes.append(reached * reached * (3.0 - 2.0 * reached))
    weights = torch.ones(len(ordered), length, dtype=torch.float64)
    for index, change in enumerate(changes):
        weights[index] *= 1.0 - change
        weights[index + 1] *= change
    weights = weights / weights.sum(0)
    return {(start, count): weights[index, start : start + count] for index, (start, count) in enumerate(ordered)}
