"""Random views between known views and frontier, from which the to-be-updated ones are chosen (section 4.3.2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.planning.frontier import describe, directions_from, frontier_view, perpendicular_pair, usable_views
from closeup_ns.planning.survey import survey
from closeup_ns.planning.target import Target
from closeup_ns.views.overlap import DepthViews
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at

DIRECTION_JITTER = 5.0
"""Largest angle in degrees between a candidate and the arc between the two views it was drawn from."""
ORIENTATION_JITTER = 3.0
"""Largest angle in degrees between a candidate's optical axis and the target."""
PAIR_ANGLE = 90.0
"""Candidates are drawn between views at most this many degrees apart, seen from the target: arcs of 180 degrees are
not unique."""
ATTEMPTS = 3
"""How many times M candidates are drawn while fewer than U survive."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Usable random views in the round's shell."""

    views: list[View]
    """Within (radius, previous radius) of the target and looking at it."""
    distances: Float[Tensor, "m"]
    """Their distances to the target."""
    depths: DepthViews
    """Their small depth maps."""
    warnings: list[str]
    """Why there may be fewer than wanted."""


def find_candidates(
    sources: Sequence[View],
    target: Target,
    shell: tuple[float, float],
    render: Renderer,
    count: int,
    wanted: int,
    generator: torch.Generator,
) -> Candidates:
    """Draw ``count`` views in ``shell`` around the target; keep those outside geometry that see the target.

    ``sources`` are the anchors and frontier views, whose directions bound the region. Where fewer than ``wanted``
    survive, ``count`` more are drawn, up to `ATTEMPTS` times. ``shell`` is the least and the largest distance.
    """
    kept: list[View] = []
    parts: list[DepthViews] = []
    faults: Counter[str] = Counter()
    drawn = 0
    while len(kept) < wanted and drawn < ATTEMPTS * count:
        views = draw_candidates(sources, target.point, shell, count, generator)
        depths = survey(views, render)
        usable, found = usable_views(depths, target.point)
        good = usable.nonzero()[:, 0]
        kept += [views[index] for index in good.tolist()]
        parts.append(depths[good])
        drawn += count
        faults.update(found)
    if not kept:
        raise PlanningError(
            f"none of {drawn} views drawn between radius {shell[0]:.4g} and {shell[1]:.4g} can be used "
            f"({describe(faults)}): use a smaller zoom, more candidates, or a target on the object's surface that the "
            "known views look at"
        )
    warnings = []
    if len(kept) < wanted:
        warnings.append(
            f"only {len(kept)} of {drawn} candidates can be used, {wanted} were wanted ({describe(faults)})"
        )
    distances = torch.stack([view.position for view in kept]).sub(target.point).norm(dim=1)
    depths = parts[0] if len(parts) == 1 else survey(kept, render)
    return Candidates(kept, distances, depths, warnings)


def draw_candidates(
    sources: Sequence[View],
    point: Float[Tensor, "3"],
    shell: tuple[float, float],
    count: int,
    generator: torch.Generator,
) -> list[View]:
    """``count`` random views around ``point`` (papers.md 6.3, point 13).

    The distance is log-uniform in ``shell``. The direction lies on the arc between those of two sources at most
    `PAIR_ANGLE` apart, off it by at most `DIRECTION_JITTER`; the optical axis misses ``point`` by at most
    `ORIENTATION_JITTER`. Intrinsics, size and roll come from the first of the two sources.
    """
    draws = torch.rand(count, 8, generator=generator, device=generator.device, dtype=torch.float64).to(point.device)
    directions = directions_from(point, sources).double()
    first, second = _draw_pairs(directions, draws[:, 0], draws[:, 1], PAIR_ANGLE)
    arc = _slerp(directions[first], directions[second], draws[:, 2])
    towards = _tilt(arc, draws[:, 3], draws[:, 4], DIRECTION_JITTER)
    # Held a hair inside the open interval, so that rounding to float32 cannot leave it.
    span = draws[:, 5].clamp(1e-4, 1.0 - 1e-4)
    distances = shell[0] * (shell[1] / shell[0]) ** span
    axes = _tilt(-towards, draws[:, 6], draws[:, 7], ORIENTATION_JITTER)
    views = []
    for row, source in enumerate(first.tolist()):
        view = frontier_view(sources[source], point, towards[row].to(point), float(distances[row]))
        views.append(aim_at(view, view.position.double() + axes[row]))
    return views


def _draw_pairs(
    directions: Float[Tensor, "n 3"], draw_first: Tensor, draw_second: Tensor, pair_angle: float
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
    """A uniformly random source, and uniformly one of those within ``pair_angle`` of it (itself included)."""
    count = directions.shape[0]
    first = (draw_first * count).long().clamp_max(count - 1)
    together = (directions @ directions.T >= math.cos(math.radians(pair_angle)) - 1e-9).fill_diagonal_(True)
    partners = together[first]
    wanted = (draw_second * partners.sum(1)).long() + 1
    second = (partners.long().cumsum(1) >= wanted[:, None]).to(torch.uint8).argmax(1)
    return first, second


def _slerp(start: Float[Tensor, "m 3"], end: Float[Tensor, "m 3"], share: Float[Tensor, "m"]) -> Float[Tensor, "m 3"]:
    """Unit vectors on the arcs from ``start`` to ``end``; the arcs must be shorter than 180 degrees."""
    angle = torch.linalg.cross(start, end).norm(dim=1).atan2((start * end).sum(1))
    sine = angle.sin().clamp_min(1e-12)
    same = angle < 1e-6
    from_start = torch.where(same, 1.0 - share, ((1.0 - share) * angle).sin() / sine)
    from_end = torch.where(same, share, (share * angle).sin() / sine)
    mixed = from_start[:, None] * start + from_end[:, None] * end
    return mixed / mixed.norm(dim=1, keepdim=True)


def _tilt(axes: Float[Tensor, "m 3"], draw: Tensor, turn: Tensor, degrees: float) -> Float[Tensor, "m 3"]:
    """Unit vectors within ``degrees`` of ``axes``, uniform over the (small) cap."""
    angle = (math.radians(degrees) * draw.sqrt())[:, None]
    first, second = perpendicular_pair(axes)
    around = (2.0 * math.pi * turn)[:, None]
    return angle.cos() * axes + angle.sin() * (around.cos() * first + around.sin() * second)
