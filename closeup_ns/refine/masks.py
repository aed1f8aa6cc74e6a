"""What a latent diffusion model is told about the known part of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.filters import opened
from closeup_ns.refine.sizes import CELL


@dataclass(frozen=True, eq=False)
class MaskedPicture:
    """A render and its mask, ready for a generator."""

    render: Float[Tensor, "3 H W"]
    """What the generator is shown, in [0, 1]."""
    mask: Bool[Tensor, "H W"]
    """Known, constant over each cell, so that shrinking it by the cell's size loses nothing in any mode."""

    @property
    def known_share(self) -> float:
        """Share of the pixels that are called known: 0 leaves all to the generator, 1 nothing."""
        return float(self.mask.float().mean())


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
    unknown: Literal["render", "black"] = "render",
    cell: int = CELL,
) -> MaskedPicture:
    """Opens ``known`` (specks and threads of one or two pixels are chance agreements) and makes it whole cells.

    All known and nothing known are both legal.

    Args:
        render: the picture, in [0, 1]; sides multiples of ``cell``.
        known: the dense mask, of the same size.
        unknown: what is shown where nothing is known: the render as it is, or black. Black follows the pixels, not the
            cells: what is known of a mixed cell is still shown.
        cell: pixels per latent cell.

    Raises:
        ValueError: the sizes differ or do not consist of cells, or ``unknown`` is neither.
    """
    if render.shape[-2:] != known.shape:
        raise ValueError(f"a render of {list(render.shape)} came with a mask of {list(known.shape)}")
    if unknown not in ("render", "black"):
        raise ValueError(f"unknown pixels can be shown as render or black, not {unknown!r}")
    clean = opened(known)
    shown = render if unknown == "render" else torch.where(clean, render, torch.zeros_like(render))
    return MaskedPicture(shown, known_cells(clean, cell))
