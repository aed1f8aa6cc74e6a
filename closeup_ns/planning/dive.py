"""A camera path that dives at a point and does not pass through what stands in the way. Pure geometry, no nerfstudio.

Along the path the *distance* to the target shrinks geometrically, so that equal times bring equal magnification:
27 times closer takes three times as long as 3 times closer, not 27 times. The camera turns from where the start view
looks to exactly at the target, by the smallest rotation from the start view, so that the photographer's "up" is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.rendering.types import Renderer
from closeup_ns.views.view import View, aim_at
from closeup_ns.views.warp import project

Ease = Literal["smooth", "soft", "linear"]

_START_CANDIDATES = 12
"""How many of the best-aimed training views are looked at for one that sees the target unobstructed."""
_AIM_PART = 0.4
"""Share of the dive over which the camera turns to the target."""
_BEND_PART = 0.5
"""Share of the dive (in log distance) over which a bent approach leaves the straight line."""


@dataclass(frozen=True)
class DiveOptions:
    """How to dive."""

    zoom: float = 27.0
    """How many times larger the target appears at the end than from ``reference_distance``."""
    frames: int = 240
    """Number of views, first and last included."""
    ease: Ease = "smooth"
    """``smooth`` starts and ends at rest (quintic), ``soft`` less so (cubic), ``linear`` runs at one speed."""
    narrow_lens: bool = False
    """Share the magnification, in equal factors, between coming closer and a narrowing lens: half the approach."""
    max_bend: float = 40.0
    """Largest turn in degrees of the approach about the target, to get around what stands in the way."""
    clearance: float = 0.1
    """Room that the camera keeps from any surface, as a fraction of its distance to the target."""
    check_size: int = 96
    """Long side in pixels of the depth images that look for obstacles."""
    check_steps: int = 24
    """Number of places along the path from which to look for obstacles."""


@dataclass(frozen=True, eq=False)
class Dive:
    """A path that was checked."""

    views: list[View]
    """One view per frame."""
    zoom: float
    """The magnification that is reached; less than asked for where something stands in the way."""
    bend: float
    """Turn of the approach about the target, in degrees; 0 is the straight line."""
    warnings: list[str] = field(default_factory=list)
    """What the user should know."""


def choose_start(
    views: Sequence[View], names: Sequence[str], wanted: str | None, target: Float[Tensor, "3"], render: Renderer
) -> tuple[View, list[str]]:
    """The view to start from, with warnings: the one called ``wanted``, or the best aimed that sees the target.

    Raises:
        CloseupError: no view has the wanted name.
        PlanningError: no view has the target in its image.
    """
    if wanted is not None:
        if wanted not in names:
            some = ", ".join(list(names)[:5])
            raise CloseupError(f"--start-view: no training image is called {wanted!r}; there are {some}, ...")
        return views[list(names).index(wanted)], []
    aimed = sorted((_off_axis(view, target), index) for index, view in enumerate(views) if _has_in_image(view, target))
    if not aimed:
        raise PlanningError("no training image has the target in it; choose another with --target X Y Z")
    for _, index in aimed[:_START_CANDIDATES]:
        if _sees(views[index], target, render):
            return views[index], []
    best = aimed[0][1]
    return views[best], [f"every training image has something in front of the target; starting from {names[best]}"]


def plan_dive(
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: DiveOptions,
    reference_distance: float | None = None,
) -> Dive:
    """A dive from ``start`` to ``target`` (world) that keeps clear of the rendered surfaces.

    The straight line is tried first, then approaches bent by up to ``max_bend`` degrees, the smallest bend first. Where
    none is free to the end, the one that comes closest is cut short, with a warning.

    Args:
        reference_distance: The distance at which the target counts as zoom 1; the start view's own if None.

    Raises:
        PlanningError: the zoom or the number of frames makes no path, the start view looks away from the target, or
            there is no approach at all.
    """
    start = start.to(dtype=torch.float64)
    point = target.to(device=start.device, dtype=torch.float64)
    distance = float((start.position - point).norm())
    reference = distance if reference_distance is None else reference_distance
    final = _final_distance(distance, reference, options)
    if float(torch.dot(start.forward, point - start.position)) < -0.9 * distance:
        raise PlanningError("the start view looks away from the target; choose another with --start-view")
    best: tuple[float, float, Tensor] | None = None
    for bend, direction in _approaches(start, point, options.max_bend):
        probe = _path(start, point, direction, distance, final, options, options.check_steps)
        reached = _free_distance(probe, point, render, options)
        # The lesser bend is kept unless the greater one comes closer by more than a rounding error.
        if best is None or reached < best[0] * 0.99:
            best = (reached, bend, direction)
        if reached <= final * 1.01:
            break
    assert best is not None
    reached, bend, direction = best
    if reached >= distance * 0.99:
        raise PlanningError(
            f"something stands right between the start view and the target {_rounded(target)}, and no approach within "
            f"{options.max_bend:g} degrees is free; choose another start view (--start-view) or target (--target)"
        )
    warnings = []
    if bend > 0.0:
        warnings.append(f"the straight line is blocked: the approach bends by {bend:.0f} degrees about the target")
    if reached > final * 1.01:
        final = reached
        warnings.append(
            f"geometry is in the way: the path stops at {_zoom_at(final, reference, options):.1f}x "
            f"instead of {options.zoom:g}x; try another --start-view, or --fov narrow"
        )
    views = _path(start, point, direction, distance, final, options, options.frames)
    return Dive(views, _zoom_at(final, reference, options), bend, warnings)


def eased(time: Float[Tensor, "n"], ease: Ease) -> Float[Tensor, "n"]:
    """Progress in [0, 1] at ``time`` in [0, 1]: monotone, symmetric, with its ends at rest unless linear."""
    if ease == "linear":
        return time
    if ease == "soft":
        return time * time * (3.0 - 2.0 * time)
    return time**3 * (time * (time * 6.0 - 15.0) + 10.0)


def stage_frames(views: list[View], target: Float[Tensor, "3"], factor: float = 3.0) -> list[int]:
    """The frames at which the distance has shrunk by each power of ``factor``, with the first and the last frame.

    For ``factor`` 3 these are the paper's rounds: 1x, 3x, 9x, 27x.
    """
    distances = torch.stack([(view.position - target.to(view.position)).norm() for view in views])
    stages = torch.log(distances[0] / distances) / math.log(factor)
    frames = {0, len(views) - 1}
    for stage in range(1, math.floor(float(stages.max()) + 1e-6) + 1):
        frames.add(int((stages - stage).abs().argmin()))
    return sorted(frames)


def _final_distance(distance: float, reference: float, options: DiveOptions) -> float:
    if not (options.zoom > 1.0 and math.isfinite(options.zoom)):
        raise PlanningError(f"--zoom must be more than 1, not {options.zoom:g}")
    if options.frames < 2:
        raise PlanningError(f"a path needs two frames at least, not {options.frames}: raise --seconds or --fps")
    final = reference / (math.sqrt(options.zoom) if options.narrow_lens else options.zoom)
    if final >= distance:
        raise PlanningError(
            f"the start view is {reference / distance:.1f}x closer than usual already, which leaves no way to "
            f"{options.zoom:g}x; choose a start view further away or a larger --zoom"
        )
    return final


def _zoom_at(distance: float, reference: float, options: DiveOptions) -> float:
    approach = reference / distance
    return approach**2 if options.narrow_lens else approach


def _approaches(start: View, point: Tensor, max_bend: float) -> Iterator[tuple[float, Tensor]]:
    """Unit directions from the target to where the camera ends up, with their bend in degrees, least bend first."""
    straight = start.position - point
    straight = straight / straight.norm()
    yield 0.0, straight
    up = -start.c2w[:3, 1]
    side = torch.linalg.cross(up, straight)
    side = side / side.norm().clamp_min(1e-12)
    rise = torch.linalg.cross(straight, side)
    bends = [bend for bend in (10.0, 20.0, 30.0, 40.0, 55.0, 70.0) if bend <= max_bend]
    for bend in bends:
        angle = math.radians(bend)
        # Upwards first, then sideways: a tripod can follow these; downwards often ends in the ground.
        for turn in (90, 0, 180, 45, 135, -45, -135, -90):
            offset = math.cos(math.radians(turn)) * side + math.sin(math.radians(turn)) * rise
            yield bend, math.cos(angle) * straight + math.sin(angle) * offset


def _path(
    start: View, point: Tensor, direction: Tensor, distance: float, final: float, options: DiveOptions, frames: int
) -> list[View]:
    """The views of a dive that ends at ``point + final * direction``."""
    straight = (start.position - point) / distance
    progress = eased(torch.linspace(0.0, 1.0, frames, dtype=torch.float64, device=point.device), options.ease)
    views = []
    for share in progress:
        at = float(share)
        away = distance * (final / distance) ** at
        outward = _between(straight, direction, float(eased(share.clamp(max=_BEND_PART) / _BEND_PART, "soft")))
        gaze = _between(start.forward, -outward, float(eased(share.clamp(max=_AIM_PART) / _AIM_PART, "soft")))
        c2w = start.c2w.clone()
        c2w[:3, 3] = point + away * outward
        moved = View(_lens(start, distance / away, options.narrow_lens), c2w, start.width, start.height)
        views.append(aim_at(moved, moved.position + away * gaze) if at > 0.0 else moved)
    return views


def _lens(start: View, approach: float, narrow: bool) -> Tensor:
    K = start.K.clone()
    if narrow:
        K[0, 0] *= approach
        K[1, 1] *= approach
    return K


def _between(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The unit vector at ``share`` of the way on the great circle from ``first`` to ``second`` (unit vectors)."""
    angle = torch.atan2(torch.linalg.cross(first, second).norm(), torch.dot(first, second))
    if float(angle) < 1e-9:
        return first
    return (torch.sin((1.0 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def _free_distance(path: list[View], point: Tensor, render: Renderer, options: DiveOptions) -> float:
    """The distance to the target at which the path first meets a surface; its last distance where it meets none."""
    for here, there in itertools.pairwise(path):
        if _is_blocked(here, there.position, point, render, options):
            return float((here.position - point).norm())
    return float((path[-1].position - point).norm())


def _is_blocked(here: View, end: Tensor, point: Tensor, render: Renderer, options: DiveOptions) -> bool:
    """Whether a surface lies within the clearance of the straight step from ``here`` to ``end``.

    The depth image is taken looking along the step itself, not along the path's own gaze.
    """
    step = end - here.position
    length = float(step.norm())
    if length <= 1e-9:
        return False
    looking = aim_at(here, end).resized(options.check_size).to(dtype=torch.float32)
    rendered = render(looking)
    room = options.clearance * float((end - point).norm())
    rows, columns = torch.meshgrid(
        torch.arange(looking.height, device=looking.device) + 0.5,
        torch.arange(looking.width, device=looking.device) + 0.5,
        indexing="ij",
    )
    K, depth = looking.K, rendered.depth
    # Sideways distance of each pixel's surface from the step's line, which is the optical axis.
    sideways = depth * torch.hypot((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1])
    solid = (rendered.alpha > 0.5) & (depth > 0)
    near = solid & (depth < length + room) & (sideways < room)
    # One stray Gaussian is not a wall: of what lies around the axis, a twentieth has to be in the way.
    around = torch.hypot((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]) < max(room / (length + room), 0.02)
    return float(near.sum()) > 0.05 * float(around.sum())


def _off_axis(view: View, target: Tensor) -> float:
    """Cosine of the angle between the gaze and the target, negated: the best aimed sorts first."""
    sight = target.to(view.position) - view.position
    return -float(torch.dot(view.forward, sight / sight.norm().clamp_min(1e-12)))


def _has_in_image(view: View, target: Tensor) -> bool:
    uv, z = project(view, target.to(view.position)[None])
    u, v = uv[0].tolist()
    return float(z[0]) > 0 and 0 <= u < view.width and 0 <= v < view.height


def _sees(view: View, target: Tensor, render: Renderer) -> bool:
    """Whether the rendered surface at the target's pixel is the target's, within a tenth of its depth."""
    small = view.resized(128)
    uv, z = project(small, target.to(small.position)[None])
    column, row = (int(value) for value in uv[0].tolist())
    patch = render(small).depth[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    seen = float(patch[patch > 0].median()) if bool((patch > 0).any()) else math.inf
    return seen > 0.9 * float(z[0])


def _rounded(point: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in point.tolist()) + ")"
