"""Plans a path of any kind: for `closeup-gs path` and for the viewer's button."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.paths.approach import Approach, find_approach
from closeup_ns.paths.clearance import free_steps, placed, target_notes
from closeup_ns.paths.geometry import progress
from closeup_ns.paths.options import Kind, PathOptions, PlannedPath
from closeup_ns.paths.orbit import plan_orbit
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


def plan_path(
    kind: Kind,
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: PathOptions,
    reference_distance: float | None = None,
    known: Sequence[View] = (),
) -> PlannedPath:
    """A path about ``target`` (world) that keeps clear of the rendered surfaces.

    A dive goes from ``start`` to the target. A pull-back comes from close to it the same way out, and ``beyond`` the
    start view. An orbit goes around it, its sweep centred on the direction of ``start`` (see `plan_orbit`).

    Args:
        reference_distance: The distance at which the target counts as zoom 1; the start view's own if None.
        known: The photographs' views, for orbits; without them nothing is known of what photographs cover.

    Raises:
        PlanningError: the target is behind the start view or on nothing, the start view is closer than the end, there
            is no free way at all, or, with ``within_coverage``, no photograph looks from near the start direction.
    """
    start, point, distance = placed(start, target)
    notes = target_notes(start, point, render)
    reference = reference_distance or distance
    if kind == "orbit":
        path = plan_orbit(start, point, distance, render, options, reference, known)
        return replace(path, warnings=notes + path.warnings)
    approach, warnings = find_approach(start, point, distance, render, options, reference, kind)
    shares = progress(options.frame_count)
    if kind == "pull-back":
        beyond, cut = _free_beyond(approach, render, options)
        # One easing covers the whole way. Beyond the start view the camera looks where the start view looks.
        last = math.log(beyond) / math.log(approach.final / distance)
        shares, warnings = 1.0 + (last - 1.0) * shares, warnings + cut
    zoom = reference / approach.final
    return PlannedPath(kind, approach.views(shares), point, zoom, bend=approach.bend, warnings=notes + warnings)


def _free_beyond(approach: Approach, render: Renderer, options: PathOptions) -> tuple[float, list[str]]:
    """How far the camera can back off, as a multiple of the start view's distance, and a warning if not all the way."""
    if options.beyond == 1.0:
        return 1.0, []
    last = math.log(options.beyond) / math.log(approach.final / approach.distance)
    probe = approach.views(torch.linspace(0.0, last, options.check_steps, dtype=torch.float64))
    free = free_steps(probe, approach.point, render, options)
    if free == len(probe) - 1:
        return options.beyond, []
    reached = float((probe[free].position - approach.point).norm()) / approach.distance
    return reached, [
        f"geometry is behind the start view: the path ends at {reached:.2f} times its distance, not {options.beyond:g}"
    ]
