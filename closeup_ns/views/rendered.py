"""What a renderer gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class Rendered:
    """One view rendered from Gaussians."""

    color: Float[Tensor, "H W 3"]
    """RGB in [0, 1]."""
    depth: Float[Tensor, "H W"]
    """Expected z-depth in world units; 0 where ``alpha`` is 0."""
    alpha: Float[Tensor, "H W"]
    """Accumulated opacity in [0, 1]."""


Renderer = Callable[[View], Rendered]
"""Renders the current model from a view, without gradients."""
