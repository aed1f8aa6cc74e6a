"""What a generative refiner hands back for one view: a picture of its own making, or why there is none."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.refiner import RefinedView
from closeup_ns.rendering.types import Rendered


def render_image(render: Rendered) -> Float[Tensor, "H W 3"]:
    """The render as a picture: finite, in [0, 1]."""
    return torch.nan_to_num(render.color).clamp(0, 1)


def generated(render: Rendered, image: Float[Tensor, "H W 3"], notes: dict[str, float | str]) -> RefinedView:
    """A picture that replaces the render everywhere: none of it is a photograph's colour, all of it is meant."""
    return RefinedView(
        image=image.to(render.color),
        real=torch.zeros_like(render.alpha, dtype=torch.bool),
        weight=torch.ones_like(render.alpha),
        notes=notes,
    )


def failed(render: Rendered, why: str) -> RefinedView:
    """The render, of which nothing is to be learnt."""
    return RefinedView(
        image=render_image(render),
        real=torch.zeros_like(render.alpha, dtype=torch.bool),
        weight=torch.zeros_like(render.alpha),
        failure=why,
    )
