"""What a latent diffusion model is told about the known part of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.filters import opened
from closeup_ns.refine.imaging.sizes import CELL


@dataclass(frozen=True, eq=False)
class MaskedPicture:
    """A render and its mask, ready for a generator."""

    render: Float[Tensor, "3 H W"]
    """What the generator is shown, in [0, 1]."""
    mask: Bool[Tensor, "H W"]
    """Known, constant over each cell, so that shrinking it by the cell's size loses nothing in any mode."""


def known_cells(known: Bool[Tensor, "H W"], cell: int = CELL) -> Bool[Tensor, "H W"]:
    """Pixels whose whole cell is known.

    A latent cell holds what its cell x cell pixels show together; called known for one of them, it would pass what the
    others show for known as well. Hence the smallest value in each cell before the mask is shrunk (papers.md 6.3, 16).

    Raises:
        ValueError: the sides are no multiples of ``cell``.
    """
    height, width = known.shape
    if height % cell or width % cell:
        raise ValueError(f"a mask of {width} x {height} pixels does not consist of cells of {cell}: pad it first")
    whole = ~(F.max_pool2d((~known).float()[None, None], cell)[0, 0] > 0.5)
    return whole.repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def mask_picture(
    render: Float[Tensor, "3 H W"],
    known: Bool[Tensor, "H W"],
    unknown: Literal["black", "render"],
) -> MaskedPicture:
    """Opens ``known`` (specks and threads of one or two pixels are chance agreements) and makes it whole cells.

    All known and nothing known are both legal.

    Args:
        render: the picture, in [0, 1]; sides multiples of a cell.
        known: the dense mask, of the same size.
        unknown: what is shown where nothing is known: black, as in See3D's training, or the render as it is. Black
            follows the pixels, not the cells: what is known of a mixed cell is still shown.

    Raises:
        ValueError: the sides are no multiples of a cell.
    """
    clean = opened(known)
    shown = render if unknown == "render" else torch.where(clean, render, torch.zeros_like(render))
    return MaskedPicture(shown, known_cells(clean))
