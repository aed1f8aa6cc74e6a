"""The orbit: around the target at one distance, the camera's tilt kept, wider where something stands in the way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.paths.approach import Approach
from closeup_ns.paths.clearance import free_steps, hides_target, is_blocked, rounded
from closeup_ns.paths.geometry import progress
from closeup_ns.paths.options import PathOptions, PlannedPath
from closeup_ns.paths.ring import Ring, directions_covered
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at

_GROWTHS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
"""How much wider than asked for the orbit may get, tried in this order."""
_COVERAGE_DEGREES = 15.0
"""A direction counts as photographed if a photograph's is within this angle of it, seen from the target."""
_STEEP = 0.2
"""Sine of the angle to the axis below which an orbit about it would only turn the picture."""


def plan_orbit(
    start: View,
    point: Float[Tensor, "3"],
    distance: float,
    render: Renderer,
    options: PathOptions,
    reference: float,
    known: Sequence[View],
) -> PlannedPath:
    """An orbit about ``point`` (world), its sweep centred on the direction of ``start``, always looking at the point.

    It goes about the mean "up" of the photographs (the start view's own where there are none), so that the camera's
    height and tilt are kept. Where a surface is in the way the radius grows smoothly around that place, to twice its
    size at most; beyond that the sweep is cut. Either is said as a warning, and so is a stretch from which something
    hides the target, and one where no photograph looks from nearby.

    Args:
        start: In float64, ``distance`` from ``point``.
        reference: The distance at which the target counts as zoom 1.

    Raises:
        PlanningError: no orbit is free at all, or, with ``within_coverage``, no photograph looks from near the start
            direction.
    """
    wanted = reference / options.zoom_of("orbit")
    radius, warnings = _reachable_radius(start, point, distance, wanted, render, options)
    aimed = aim_at(start, point)
    half = max(2, math.ceil(options.check_steps / 2))
    nodes = torch.linspace(-0.5, 0.5, 2 * half + 1, dtype=torch.float64) * options.degrees
    ring = Ring(aimed, point, _axis(aimed, known), radius, nodes, torch.zeros_like(nodes))
    ring, low, high, notes = _free_ring(ring, render, options)
    warnings += notes
    low, high, notes = _covered(ring, low, high, known, options)
    warnings += notes + _hidden(ring, low, high, render)
    first, last = float(ring.nodes[low]), float(ring.nodes[high])
    angles = first + (last - first) * progress(options.frame_count)
    views = [ring.view_at(angle) for angle in angles.tolist()]
    return PlannedPath("orbit", views, point, reference / radius, sweep=abs(last - first), warnings=warnings)


def _axis(aimed: View, known: Sequence[View]) -> Tensor:
    """Mean "up" of the photographs, unless it is unknown or lies in the line of sight: then the start view's own."""
    own = -aimed.c2w[:3, 1]
    if not known:
        return own
    mean = -torch.stack([view.c2w[:3, 1].to(own) for view in known]).mean(0)
    mean = mean / mean.norm().clamp_min(1e-12)
    across = torch.linalg.cross(mean, aimed.forward).norm()
    return mean if float(across) > _STEEP else own


def _reachable_radius(
    start: View, point: Tensor, distance: float, radius: float, render: Renderer, options: PathOptions
) -> tuple[float, list[str]]:
    """The radius, or how close the straight way to it gets where a surface is before it."""
    straight = Approach(start, point, (start.position - point) / distance, distance, radius)
    probe = straight.views(torch.linspace(0.0, 1.0, options.check_steps, dtype=torch.float64))
    free = free_steps(probe, point, render, options)
    if free == len(probe) - 1:
        return radius, []
    if free == 0:
        raise PlanningError(
            f"something stands right between the start view and an orbit at {radius:.3g} from the target "
            f"{rounded(point)}; choose another start view or zoom"
        )
    reached = float((probe[free].position - point).norm())
    return reached, [f"geometry is in the way: the orbit keeps {reached:.3g} from the target instead of {radius:.3g}"]


def _free_ring(ring: Ring, render: Renderer, options: PathOptions) -> tuple[Ring, int, int, list[str]]:
    """The ring, grown where it must, with the first and last node of its free stretch and what to say about it."""
    steps = len(ring.nodes) - 1
    middle = steps // 2
    need = [_least_growth(ring, step, render, options) for step in range(steps)]
    blocked = [math.isinf(growth) for growth in need]
    low, high = _stretch(blocked, middle)
    growth = torch.zeros_like(ring.nodes)
    for step in range(low, high):
        growth[step : step + 2] = growth[step : step + 2].clamp_min(math.log(need[step]))
    ring = replace(ring, growth=growth)
    if bool((growth > 0).any()):
        # The way out to the wider stretch and back was not looked at yet.
        views = [ring.view_at(angle) for angle in ring.nodes.tolist()]
        for step in range(low, high):
            blocked[step] = is_blocked(views[step], views[step + 1].position, ring.point, render, options)
        low, high = _stretch(blocked, middle)
    if low == high:
        raise PlanningError(
            f"no orbit at {ring.radius:.3g} from the target {rounded(ring.point)} is free: a surface is too close on "
            "both sides; choose another zoom, start view or target"
        )
    notes = []
    widest = max(ring.growth_at(angle) for angle in ring.nodes[low : high + 1].tolist())
    if widest > 1.001:
        notes.append(f"geometry is in the way: the orbit is up to {widest:.2f} times as wide there")
    if high - low < steps:
        notes.append(f"geometry cuts the orbit to {_sweep(ring, low, high):.0f} of {abs(options.degrees):g} degrees")
    return ring, low, high, notes


def _least_growth(ring: Ring, step: int, render: Renderer, options: PathOptions) -> float:
    """By how much the ring has to be wider for the step to be free; infinity where nothing helps."""
    first, last = float(ring.nodes[step]), float(ring.nodes[step + 1])
    for growth in _GROWTHS:
        here, there = ring.view_at(first, growth), ring.view_at(last, growth)
        # A step is looked at from both ends: from one alone, what is beside its beginning would be out of the image.
        if not any(
            is_blocked(a, b.position, ring.point, render, options) for a, b in itertools.permutations((here, there))
        ):
            return growth
    return math.inf


def _covered(
    ring: Ring, low: int, high: int, known: Sequence[View], options: PathOptions
) -> tuple[int, int, list[str]]:
    """The stretch, cut to where photographs look from if that is asked for, and a warning."""
    if not known:
        return low, high, []
    outward = -torch.stack([ring.view_at(angle, 1.0).forward for angle in ring.nodes.tolist()])
    uncovered = ~directions_covered(outward, known, ring.point, _COVERAGE_DEGREES)
    if not bool(uncovered[low : high + 1].any()):
        return low, high, []
    sweep, near = _sweep(ring, low, high), f"within {_COVERAGE_DEGREES:g} degrees"
    if not options.within_coverage:
        outside = float(uncovered[low : high + 1].double().mean()) * sweep
        warning = f"over {outside:.0f} of its {sweep:.0f} degrees the orbit looks from where no photograph does {near}"
        return low, high, [warning]
    left, right = _stretch([bool(a or b) for a, b in itertools.pairwise(uncovered.tolist())], len(uncovered) // 2)
    low, high = max(low, left), min(high, right)
    if low >= high:
        raise PlanningError(
            f"no photograph looks at the target {rounded(ring.point)} from {near} of the start direction; choose "
            "another start view, or let the orbit leave what photographs cover"
        )
    sweep = _sweep(ring, low, high)
    return low, high, [f"what photographs cover cuts the orbit to {sweep:.0f} of {abs(options.degrees):g} degrees"]


def _hidden(ring: Ring, low: int, high: int, render: Renderer) -> list[str]:
    hidden = [hides_target(ring.view_at(angle), ring.point, render) for angle in ring.nodes[low : high + 1].tolist()]
    if not any(hidden):
        return []
    share = sum(hidden) / len(hidden) * _sweep(ring, low, high)
    return [f"something stands in front of the target over {share:.0f} of {_sweep(ring, low, high):.0f} degrees"]


def _stretch(blocked: Sequence[bool], middle: int) -> tuple[int, int]:
    """First and last node of the steps around node ``middle`` that are all free; equal where there are none."""
    low, high = middle, middle
    while high < len(blocked) and not blocked[high]:
        high += 1
    while low > 0 and not blocked[low - 1]:
        low -= 1
    return low, high


def _sweep(ring: Ring, low: int, high: int) -> float:
    return abs(float(ring.nodes[high] - ring.nodes[low]))
