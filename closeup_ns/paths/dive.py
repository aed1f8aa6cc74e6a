"""The dive from a start view at the target, and the pull-back, which goes the same way out."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from closeup_ns.paths.approach import Approach, find_approach
from closeup_ns.paths.clearance import free_steps, placed, target_notes
from closeup_ns.paths.geometry import progress, zoom_at
from closeup_ns.paths.options import PathOptions, PlannedPath
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


def plan_dive(
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: PathOptions,
    reference_distance: float | None = None,
) -> PlannedPath:
    """A dive from ``start`` to ``target`` (world) that keeps clear of the rendered surfaces.

    Args:
        reference_distance: The distance at which the target counts as zoom 1; the start view's own if None.

    Raises:
        PlanningError: the target is behind the start view or on nothing, the start view is closer than the end, or
            there is no free approach at all.
    """
    start, point, distance = placed(start, target)
    notes = target_notes(start, point, render)
    reference = reference_distance or distance
    approach, warnings = find_approach(start, point, distance, render, options, reference, "dive")
    views = approach.views(progress(options.frames, options.ease))
    zoom = zoom_at(approach.final, distance, reference, options.narrow_lens)
    return PlannedPath("dive", views, point, zoom, bend=approach.bend, warnings=notes + warnings)


def plan_pull_back(
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: PathOptions,
    reference_distance: float | None = None,
) -> PlannedPath:
    """From close to ``target`` (world) back to ``start`` the way that a dive would come, and ``beyond`` it.

    One easing covers the whole way. Beyond the start view the camera backs off straight from the target and goes on
    looking where the start view looks.

    Args:
        reference_distance: As for `plan_dive`.

    Raises:
        PlanningError: as for `plan_dive`.
    """
    start, point, distance = placed(start, target)
    notes = target_notes(start, point, render)
    reference = reference_distance or distance
    approach, warnings = find_approach(start, point, distance, render, options, reference, "pull-back")
    beyond, cut = _free_beyond(approach, render, options)
    last = math.log(beyond) / math.log(approach.final / distance)
    views = approach.views(1.0 + (last - 1.0) * progress(options.frames, options.ease))
    zoom = zoom_at(approach.final, distance, reference, options.narrow_lens)
    return PlannedPath("pull-back", views, point, zoom, bend=approach.bend, warnings=notes + warnings + cut)


def _free_beyond(approach: Approach, render: Renderer, options: PathOptions) -> tuple[float, list[str]]:
    """How far the camera can back off, as a multiple of the start view's distance, and a warning if not all the way."""
    if options.beyond == 1.0:
        return 1.0, []
    last = math.log(options.beyond) / math.log(approach.final / approach.distance)
    probe = approach.views(last * progress(options.check_steps, "linear"))
    free = free_steps(probe, approach.point, render, options)
    if free == len(probe) - 1:
        return options.beyond, []
    reached = float((probe[free].position - approach.point).norm()) / approach.distance
    return reached, [
        f"geometry is behind the start view: the path ends at {reached:.2f} times its distance, not {options.beyond:g}"
    ]
