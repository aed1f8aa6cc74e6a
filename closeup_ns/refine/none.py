"""The refiner that refines nothing: the control that rounds with a refiner are compared with."""

from __future__ import annotations

import torch

from closeup_ns.refine.protocol import RefinedView, RefineRequest


class NoRefiner:
    """Passes the render on with weight 0, so that a round has only its sparse reliable pixels to learn from."""

    name = "none"
    generates = False
    frames = 1

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """The renders themselves; nothing in them is called real."""
        return [
            RefinedView(
                image=render.color.clamp(0, 1),
                real=torch.zeros_like(render.alpha, dtype=torch.bool),
                weight=torch.zeros_like(render.alpha),
            )
            for render in request.renders
        ]

    def close(self) -> None:
        """Nothing was loaded."""
