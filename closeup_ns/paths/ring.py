"""Views around a target by their angle, and which of those directions photographs cover. Pure geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.views.rotation import rotation
from closeup_ns.views.view import View
from closeup_ns.views.warp import most_central

_SMOOTHING = 8
"""A local growth fades out over the orbit's check steps divided by this, to either side."""


@dataclass(frozen=True, eq=False)
class Ring:
    """Every view of an orbit by its angle."""

    aimed: View
    """The start view, turned to the target: its distance does not matter."""
    point: Float[Tensor, "3"]
    """The target in world coordinates."""
    axis: Float[Tensor, "3"]
    """Unit vector about which the camera goes."""
    radius: float
    """Distance from the target."""
    nodes: Float[Tensor, "n"]
    """Angles in degrees, increasing or decreasing, at which ``growth`` is known."""
    growth: Float[Tensor, "n"]
    """Least growth that is free there (logarithm)."""

    def view_at(self, degrees: float, growth: float | None = None) -> View:
        """The view at an angle from the start direction, ``growth`` times further out than the radius."""
        turn = rotation(math.radians(degrees) * self.axis)
        away = self.radius * (self.growth_at(degrees) if growth is None else growth)
        c2w = self.aimed.c2w.clone()
        c2w[:3, :3] = turn @ self.aimed.c2w[:3, :3]
        c2w[:3, 3] = self.point - away * c2w[:3, 2]
        return View(self.aimed.K, c2w, self.aimed.width, self.aimed.height)

    def growth_at(self, degrees: float) -> float:
        """A smooth envelope: at no node below what is needed there, and none where nothing is needed nearby.

        The nodes' needs are first widened by the smoothing window, then averaged with weights over it: each value that
        enters the average at a node is at least that node's own need.
        """
        if not bool((self.growth > 0).any()):
            return 1.0
        reach = max(1, round((len(self.nodes) - 1) / _SMOOTHING))
        widened = torch.nn.functional.max_pool1d(self.growth[None, None], 2 * reach + 1, 1, reach)[0, 0]
        offset = (self.nodes - degrees) / float(self.nodes[1] - self.nodes[0]) / (reach + 1)
        weight = (0.5 + 0.5 * torch.cos(math.pi * offset)) * (offset.abs() < 1.0)
        return math.exp(float((weight * widened).sum() / weight.sum()))


def directions_covered(
    outward: Float[Tensor, "n 3"], known: Sequence[View], point: Float[Tensor, "3"], degrees: float
) -> Bool[Tensor, "n"]:
    """Whether a photograph that has ``point`` in its image looks from within ``degrees`` of each direction.

    Directions are unit vectors from the target (world). What hides the target from a photograph is not considered.
    """
    seeing = [known[index].position.to(outward) - point for index in most_central(known, point)]
    if not seeing:
        return torch.zeros(len(outward), dtype=torch.bool, device=outward.device)
    photographed = torch.nn.functional.normalize(torch.stack(seeing), dim=1)
    return (outward @ photographed.T).amax(1) >= math.cos(math.radians(degrees))
