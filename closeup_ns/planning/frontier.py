"""Frontier views: the closest views of a round, on the lines from anchors to the target (paper, section 4.3.1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.planning.survey import point_visibility, survey
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
    queue = list(previous)
    while len(chosen) < count:
        free = usable & (nearest < limit)
        if not bool(free.any()):
            break
        if queue:
            index = queue.pop(0)
        elif not chosen:
            index = int((directions @ directions[free].mean(0)).masked_fill(~free, -torch.inf).argmax())
        else:
            index = int(nearest.masked_fill(~free, torch.inf).argmin())
        if bool(free[index]):
            chosen.append(index)
            nearest = torch.maximum(nearest, directions @ directions[index])
    return chosen


def frontier_view(seed: View, point: Float[Tensor, "3"], direction: Float[Tensor, "3"], radius: float) -> View:
    """``seed`` at ``radius`` from ``point`` in the unit vector ``direction``, aimed at ``point``; roll kept."""
    c2w = seed.c2w.clone()
    c2w[:3, 3] = point + radius * direction
    return aim_at(View(seed.K, c2w, seed.width, seed.height), point)


def inside_geometry(views: DepthViews, point: Float[Tensor, "3"]) -> Bool[Tensor, "n"]:
    """Which views render a surface right before them, compared with their distance to ``point``."""
    limit = CLEARANCE * (views.c2w[:, :3, 3] - point).norm(dim=1)
    near = (views.depth > 0) & (views.depth < limit[:, None, None])
    return near.flatten(1).sum(1) / views.size.prod(1) > CLEARANCE_FRACTION


def usable_views(views: DepthViews, point: Float[Tensor, "3"]) -> tuple[Bool[Tensor, "n"], Counter[str]]:
    """Which views show ``point`` from outside geometry, and how many do not for which (their first) reason."""
    seen, inside = point_visibility(views, point), inside_geometry(views, point)
    empty = (seen.empty() | ~seen.in_frame) & ~inside
    hidden = seen.hidden() & ~inside
    faults = {"inside geometry": inside, "nothing rendered at the target": empty, "target hidden": hidden}
    return ~(inside | empty | hidden), Counter({name: int(mask.sum()) for name, mask in faults.items()})


def describe(faults: Counter[str]) -> str:
    """The faults that `usable_views` counts, for a message."""
    return ", ".join(f"{name}: {count}" for name, count in faults.items())


def frontier_of(given: Sequence[View], known: Sequence[View], target: Target, render: Renderer) -> Frontier:
    """Given views but those inside geometry, as the frontier; each takes the known view of the nearest direction."""
    views = [view.to(known[0].device, known[0].c2w.dtype) for view in given]
    inside = inside_geometry(survey(views, render), target.point)
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
    free, faults = usable_views(depths, point)
    warnings: list[str] = []
    placed: list[tuple[int, View]] = []
    for index, view, direction, is_free in zip(seeds, views, towards, free.tolist(), strict=True):
        if not is_free:
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
            f"no camera fits at radius {radius:.4g} around the target ({describe(faults)} of {len(views)} lines "
            "from known views, and no direction near them is free): use a smaller zoom or fewer rounds, or move the "
            "target to the object's surface on the cameras' side"
        )
    if not bool(free.all()):
        depths = survey([view for _, view in placed], render)
    return Frontier([view for _, view in placed], [index for index, _ in placed], depths, warnings)


def _nearest_free(
    seed: View, target: Target, direction: Tensor, radius: float, render: Renderer
) -> tuple[View, float] | None:
    """The free view with the smallest angle to ``direction`` (and that angle in degrees), searched ring by ring."""
    first, second = perpendicular_pair(direction[None])
    turn = torch.arange(_RING_STEPS).to(direction)[:, None] * (2.0 * math.pi / _RING_STEPS)
    around = turn.cos() * first + turn.sin() * second
    for angle in _RING_ANGLES:
        ring = math.cos(math.radians(angle)) * direction + math.sin(math.radians(angle)) * around
        views = [frontier_view(seed, target.point, towards, radius) for towards in ring]
        free, _ = usable_views(survey(views, render), target.point)
        if bool(free.any()):
            return views[int(free.nonzero()[0, 0])], angle
    return None


def perpendicular_pair(axes: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Two unit vectors per unit vector of ``axes``, perpendicular to it and to each other."""
    helper = torch.zeros_like(axes).scatter_(1, axes.abs().argmin(1, keepdim=True), 1.0)
    first = torch.linalg.cross(axes, helper)
    first = first / first.norm(dim=1, keepdim=True)
    return first, torch.linalg.cross(axes, first)
