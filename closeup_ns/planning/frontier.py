"""Frontier views: the closest views of a round, on the lines from anchors to the target (paper, section 4.3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.planning.survey import near_share, point_visibility, survey
from closeup_ns.planning.target import Target
from closeup_ns.views.overlap import DepthViews
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at

SEED_SEPARATION = 2.0
"""Least angle in degrees between two frontier views, seen from the target."""
CLEARANCE = 0.3
"""A view is inside geometry if it renders depth nearer than this share of its distance to the target ..."""
CLEARANCE_FRACTION = 0.02
"""... on more than this share of its pixels, so that a few stray Gaussians do not close a direction."""
TARGET_DEPTH_REL = 0.25
"""The target is hidden where the rendered depth is smaller than its own by more than this share."""
_RING_ANGLES = (5.0, 10.0, 20.0, 30.0, 45.0)
_RING_STEPS = 8


@dataclass(frozen=True, eq=False)
class Frontier:
    """The frontier views of a round."""

    views: list[View]
    """At the round's radius, looking at the target; size and intrinsics of the view each one comes from."""
    seeds: list[int]
    """Index of the known view that gave each one its direction."""
    depths: DepthViews
    """Their small depth maps."""
    warnings: list[str]
    """Directions that had to be changed or given up."""

    def radius(self, point: Float[Tensor, "3"]) -> float:
        """Median distance of the views to ``point``."""
        return float(torch.stack([(view.position - point).norm() for view in self.views]).median())


def directions_from(point: Float[Tensor, "3"], views: Sequence[View]) -> Float[Tensor, "n 3"]:
    """Unit vectors from ``point`` to the camera centres."""
    offsets = torch.stack([view.position for view in views]) - point
    return offsets / offsets.norm(dim=1, keepdim=True).clamp_min(1e-12)


def seed_views(
    directions: Float[Tensor, "n 3"],
    usable: Bool[Tensor, "n"],
    count: int,
    previous: Sequence[int] = (),
) -> list[int]:
    """At most ``count`` known views that give the frontier its directions (papers.md 6.3, point 3).

    They are at least `SEED_SEPARATION` apart. The previous round's anchors come first. What is missing is filled with
    usable views by deterministic farthest-point sampling over the directions, beginning at the most central one.
    """
    limit = math.cos(math.radians(SEED_SEPARATION))
    chosen: list[int] = []
    # The cosine to the nearest chosen direction; -2 while none is chosen.
    nearest = directions.new_full((directions.shape[0],), -2.0)
    queue = [index for index in previous if bool(usable[index])]
    while len(chosen) < count:
        if not queue:
            free = usable & (nearest < limit)
            if not bool(free.any()):
                break
            queue = [_next_seed(directions, free, nearest, first=not chosen)]
        index = queue.pop(0)
        if float(nearest[index]) >= limit:
            continue
        chosen.append(index)
        nearest = torch.maximum(nearest, directions @ directions[index])
    return chosen


def _next_seed(directions: Tensor, free: Tensor, nearest: Tensor, first: bool) -> int:
    if first:
        return int((directions @ directions[free].mean(0)).masked_fill(~free, -torch.inf).argmax())
    return int(nearest.masked_fill(~free, torch.inf).argmin())


def frontier_view(seed: View, point: Float[Tensor, "3"], direction: Float[Tensor, "3"], radius: float) -> View:
    """``seed`` at ``radius`` from ``point`` in the unit vector ``direction``, aimed at ``point``; roll kept."""
    c2w = seed.c2w.clone()
    c2w[:3, 3] = point + radius * direction
    return aim_at(View(seed.K, c2w, seed.width, seed.height), point)


def view_faults(views: DepthViews, point: Float[Tensor, "3"]) -> dict[str, Bool[Tensor, "n"]]:
    """Why views cannot be used, each view under its first reason: inside geometry, target not shown, target hidden."""
    seen = point_visibility(views, point)
    inside = near_share(views, CLEARANCE * seen.distance) > CLEARANCE_FRACTION
    empty = (seen.empty() | ~seen.in_frame) & ~inside
    hidden = seen.hidden(TARGET_DEPTH_REL) & ~inside
    return {"inside geometry": inside, "nothing rendered at the target": empty, "target hidden": hidden}


def describe_faults(faults: dict[str, Tensor]) -> str:
    """The counts of `view_faults`, for a message."""
    return ", ".join(f"{name}: {int(mask.sum())}" for name, mask in faults.items())


def frontier_of(given: Sequence[View], known: Sequence[View], target: Target, render: Renderer) -> Frontier:
    """Given views as the frontier, without those inside geometry; each takes the known view of the nearest direction.

    Raises:
        PlanningError: none of them is outside geometry.
    """
    views = [view.to(known[0].device, known[0].c2w.dtype) for view in given]
    inside = view_faults(survey(views, render), target.point)["inside geometry"]
    kept = [view for view, bad in zip(views, inside.tolist(), strict=True) if not bad]
    if not kept:
        raise PlanningError(
            f"all {len(views)} given frontier views lie inside geometry; are they in the capture's frame?"
        )
    lost = len(views) - len(kept)
    cosines = directions_from(target.point, kept) @ directions_from(target.point, known).T
    warnings = [f"{lost} given frontier views lie inside geometry and are left out"] if lost else []
    return Frontier(kept, cosines.argmax(1).tolist(), survey(kept, render), warnings)


def place_frontier(
    known: Sequence[View],
    names: Sequence[str],
    seeds: Sequence[int],
    target: Target,
    radius: float,
    render: Renderer,
) -> Frontier:
    """One view per seed at ``radius`` from the target, on the seed's side of it and outside geometry.

    ``seeds`` are indices into ``known``; ``names`` are the known views' names, for the warnings.
    Where the seed's own direction is blocked, the nearest free direction on rings around it is used, with a warning.

    Raises:
        PlanningError: no seed has a free direction within 45 degrees at this radius.
    """
    point = target.point
    towards = directions_from(point, [known[index] for index in seeds])
    views = [frontier_view(known[i], point, d, radius) for i, d in zip(seeds, towards, strict=True)]
    depths = survey(views, render)
    faults = view_faults(depths, point)
    blocked = torch.stack(list(faults.values())).any(0).tolist()
    warnings: list[str] = []
    placed: list[tuple[int, View]] = []
    for index, view, direction, is_blocked in zip(seeds, views, towards, blocked, strict=True):
        if is_blocked:
            found = _nearest_free(known[index], target, direction, radius, render)
            if found is None:
                warnings.append(f"no free place at radius {radius:.4g} within 45 degrees of {names[index]}; left out")
                continue
            view, angle = found
            warnings.append(
                f"{names[index]}'s line to the target is blocked at {radius:.4g}; turned by {angle:.0f} degrees"
            )
        placed.append((index, view))
    if not placed:
        raise PlanningError(
            f"no camera fits at radius {radius:.4g} around the target ({describe_faults(faults)} of {len(views)} lines "
            "from known views, and no direction near them is free): use a smaller zoom or fewer rounds, or move the "
            "target to the object's surface on the cameras' side"
        )
    if any(blocked):
        depths = survey([view for _, view in placed], render)
    return Frontier([view for _, view in placed], [index for index, _ in placed], depths, warnings)


def _nearest_free(
    seed: View, target: Target, direction: Tensor, radius: float, render: Renderer
) -> tuple[View, float] | None:
    """The free view with the smallest angle to ``direction`` (and that angle in degrees), searched ring by ring."""
    for angle in _RING_ANGLES:
        ring = [
            frontier_view(seed, target.point, d, radius) for d in _ring(direction, math.radians(angle), _RING_STEPS)
        ]
        faults = view_faults(survey(ring, render), target.point)
        free = ~torch.stack(list(faults.values())).any(0)
        if bool(free.any()):
            return ring[int(free.nonzero()[0, 0])], angle
    return None


def _ring(axis: Float[Tensor, "3"], angle: float, steps: int) -> Float[Tensor, "steps 3"]:
    """Unit vectors at ``angle`` radians from the unit vector ``axis``, evenly around it."""
    first, second = perpendicular_pair(axis[None])
    turn = torch.arange(steps, dtype=axis.dtype, device=axis.device) * (2.0 * math.pi / steps)
    side = turn.cos()[:, None] * first + turn.sin()[:, None] * second
    return math.cos(angle) * axis + math.sin(angle) * side


def perpendicular_pair(axes: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Two unit vectors per unit vector of ``axes``, perpendicular to it and to each other."""
    helper = torch.zeros_like(axes).scatter_(1, axes.abs().argmin(1, keepdim=True), 1.0)
    first = torch.linalg.cross(axes, helper)
    first = first / first.norm(dim=1, keepdim=True)
    return first, torch.linalg.cross(axes, first)


def visible_known(known: DepthViews, target: Target) -> Int[Tensor, "m"]:
    """Indices of the known views that have the target in their image with nothing in front of it."""
    seen = point_visibility(known, target.point)
    return (seen.in_frame & ~seen.hidden(TARGET_DEPTH_REL)).nonzero()[:, 0]
