"""What a generative refiner hands back for one view: a picture of its own making, or why there is none."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.protocol import RefinedView
from closeup_ns.views.rendered import Rendered

SOLID_ALPHA = 0.5
"""Pixels with less opacity have no surface that a colour could sit on (0.99 in G4Splat, where half-transparent edges
are dropped as well)."""


def trust(render: Rendered, known: Bool[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Weight of a generated picture: 1 where photographs back the pixel or the render is solid, less with alpha.

    0 where nothing is rendered: a colour there has no surface, and training on it would put one into the empty space.
    """
    solid = torch.nan_to_num(render.alpha / SOLID_ALPHA).clamp(0, 1)
    return torch.where(known, torch.ones_like(solid), solid)


def generated(
    render: Rendered,
    known: Bool[Tensor, "H W"],
    image: Float[Tensor, "H W 3"],
    notes: dict[str, float | str] | None = None,
) -> RefinedView:
    """A picture that replaces the render everywhere; none of its pixels is called real."""
    return RefinedView(
        image=image.to(render.color).contiguous(),
        real=torch.zeros_like(render.alpha, dtype=torch.bool),
        weight=trust(render, known),
        notes=notes or {},
    )


def failed(render: Rendered, why: str, notes: dict[str, float | str] | None = None) -> RefinedView:
    """The render with weight 0, so that the view is not trained on; ``why`` is one sentence."""
    return RefinedView(
        image=torch.nan_to_num(render.color).clamp(0, 1),
        real=torch.zeros_like(render.alpha, dtype=torch.bool),
        weight=torch.zeros_like(render.alpha),
        notes=notes or {},
        failure=why,
    )
