"""The way between a start view and a place near the target that does not pass through what stands in between.

Along it the *distance* to the target changes geometrically, so that equal times bring equal magnification: 27 times
closer takes three times as long as 3 times closer, not 27 times. The camera turns from where the start view looks to
exactly at the target, by the smallest rotation from the start view, so that the photographer's "up" is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.paths.clearance import free_steps, rounded
from closeup_ns.paths.geometry import between, progress, soft
from closeup_ns.paths.options import Kind, PathOptions
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at

_BENDS = (10.0, 20.0, 30.0, 40.0)
"""Degrees about the target that an approach may be bent by, to get around what stands in the way."""
_AIM_PART = 0.4
"""Share of the approach over which the camera turns to the target."""
_BEND_PART = 0.5
"""Share of the approach (in log distance) over which a bent one leaves the straight line."""


@dataclass(frozen=True, eq=False)
class Approach:
    """All views between the start view and the closest one, by their share of the approach in log distance."""

    start: View
    point: Float[Tensor, "3"]
    """The target in world coordinates."""
    direction: Float[Tensor, "3"]
    """Unit vector from the target to where the camera is closest."""
    distance: float
    """Of the start view from the target."""
    final: float
    """The closest distance."""
    bend: float = 0.0
    """Degrees between ``direction`` and the straight line."""

    def view_at(self, share: float) -> View:
        """The view at ``share``: 0 is the start view exactly, 1 the closest, below 0 straight back beyond the start."""
        if share == 0.0:
            return self.start
        straight = (self.start.position - self.point) / self.distance
        at = torch.tensor(max(0.0, share), dtype=torch.float64)
        away = self.distance * (self.final / self.distance) ** share
        outward = between(straight, self.direction, float(soft(at.clamp(max=_BEND_PART) / _BEND_PART)))
        gaze = between(self.start.forward, -outward, float(soft(at.clamp(max=_AIM_PART) / _AIM_PART)))
        c2w = self.start.c2w.clone()
        c2w[:3, 3] = self.point + away * outward
        moved = replace(self.start, c2w=c2w)
        return aim_at(moved, moved.position + away * gaze) if share > 0.0 else moved

    def views(self, shares: Float[Tensor, "n"]) -> list[View]:
        """One view per share."""
        return [self.view_at(share) for share in shares.tolist()]


def find_approach(
    start: View, point: Tensor, distance: float, render: Renderer, options: PathOptions, reference: float, kind: Kind
) -> tuple[Approach, list[str]]:
    """A free approach to the target, with warnings.

    The straight line is tried first, then bent approaches, the smallest bend first. Where
    none is free to the end, the one that comes closest is cut short, with a warning.

    Args:
        start: In float64, looking towards ``point``.
        reference: The distance at which the target counts as zoom 1.

    Raises:
        PlanningError: the start view is closer than the end already, or there is no approach at all.
    """
    wanted = options.zoom_of(kind)
    final = reference / wanted
    if final >= distance:
        raise PlanningError(
            f"the start view is at {reference / distance:.2g}x of the usual size already, which leaves no way to "
            f"{wanted:.2g}x; choose a start view further away or a larger zoom"
        )
    best: tuple[float, Approach] | None = None
    for bend, direction in _directions(start, point):
        tried = Approach(start, point, direction, distance, final, bend)
        probe = tried.views(progress(options.check_steps))
        reached = float((probe[free_steps(probe, point, render, options)].position - point).norm())
        # The lesser bend is kept unless the greater one comes closer by more than a rounding error.
        if best is None or reached < best[0] * 0.99:
            best = (reached, tried)
        if reached <= final * 1.01:
            break
    assert best is not None
    reached, approach = best
    if reached >= distance * 0.99:
        raise PlanningError(
            f"something stands right between the start view and the target {rounded(point)}, and no approach within "
            f"{_BENDS[-1]:g} degrees is free; choose another start view or target"
        )
    warnings = []
    if approach.bend > 0.0:
        warnings.append(f"the straight line is blocked: the path bends by {approach.bend:.0f} degrees about the target")
    if reached > final * 1.01:
        verb = "starts" if kind == "pull-back" else "stops"
        warnings.append(
            f"geometry is in the way: the path {verb} at {reference / reached:.1f}x, "
            f"{reached:.3g} from the target, instead of {wanted:.3g}x; try another start view"
        )
        approach = replace(approach, final=reached)
    return approach, warnings


def _directions(start: View, point: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Unit directions from the target to where the camera ends up, with their bend in degrees, least bend first."""
    straight = start.position - point
    straight = straight / straight.norm()
    yield 0.0, straight
    up = -start.c2w[:3, 1]
    side = torch.linalg.cross(up, straight)
    side = side / side.norm().clamp_min(1e-12)
    rise = torch.linalg.cross(straight, side)
    for bend in _BENDS:
        angle = math.radians(bend)
        # Upwards first, then sideways: a tripod can follow these; downwards often ends in the ground.
        for turn in (90, 0, 180, 45, 135, -45, -135, -90):
            offset = math.cos(math.radians(turn)) * side + math.sin(math.radians(turn)) * rise
            yield bend, math.cos(angle) * straight + math.sin(angle) * offset
