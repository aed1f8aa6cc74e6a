"""What a latent diffusion model is told about the known part of a picture."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.filters import opened
from closeup_ns.refine.imaging.sizes import CELL


def known_cells(known: Bool[Tensor, "H W"], cell: int = CELL) -> Bool[Tensor, "H W"]:
    """Pixels whose whole cell is known; the sides are multiples of ``cell``.

    A latent cell holds what its cell x cell pixels show together; called known for one of them, it would pass what the
    others show for known as well. Hence the smallest value in each cell before the mask is shrunk (papers.md 6.3, 16).
    """
    whole = ~(F.max_pool2d((~known).float()[None, None], cell)[0, 0] > 0.5)
    return whole.repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def mask_picture(
    render: Float[Tensor, "3 H W"], known: Bool[Tensor, "H W"], unknown: Literal["black", "render"]
) -> tuple[Float[Tensor, "3 H W"], Bool[Tensor, "H W"]]:
    """What the generator is shown of a picture, and what of it is called known, constant over each cell.

    ``known`` is opened first: specks and threads of one or two pixels are chance agreements.

    Args:
        render: the picture, in [0, 1]; sides multiples of a cell.
        known: the dense mask, of the same size; all known and nothing known are both legal.
        unknown: what is shown where nothing is known: black, as in See3D's training, or the render as it is. Black
            follows the pixels, not the cells: what is known of a mixed cell is still shown.
    """
    clean = opened(known)
    shown = render if unknown == "render" else torch.where(clean, render, torch.zeros_like(render))
    return shown, known_cells(clean)
