"""Obstacles on a camera's way, found on small depth images of the model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.paths.options import PathOptions
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at

_WIDEST_FOCAL = 0.6
"""Focal length, in long sides, of the lens that looks for obstacles at the most: 80 degrees. A longer lens would not
see what is beside the path."""
_PATCH = 16
"""Side in pixels of the image that looks for the target's own surface."""
_STANDS_IN_FRONT = 0.9
"""A surface at less than this share of the target's depth hides it."""
_FAR_BEHIND = 1.5
"""A surface at more than this multiple of the target's depth is not the target's."""


def placed(start: View, target: Float[Tensor, "3"]) -> tuple[View, Tensor, float]:
    """The start view and the target in float64 on one device, and their distance.

    PlanningError where the target is no point, or not in front of the start view.
    """
    start = start.to(dtype=torch.float64)
    point = target.to(device=start.device, dtype=torch.float64)
    if not bool(torch.isfinite(point).all()):
        raise PlanningError(f"a target is three finite world coordinates, not {point.tolist()}")
    offset = point - start.position
    distance = float(offset.norm())
    if not float(torch.dot(start.forward, offset)) > 1e-6 * distance:
        raise PlanningError(
            f"the target {rounded(point)} is behind the start view; choose another start view or target"
        )
    return start, point, distance


def target_notes(start: View, point: Float[Tensor, "3"], render: Renderer) -> list[str]:
    """Warnings about a target that has nothing at it, seen from the start view.

    PlanningError where nothing solid is rendered there at all.
    """
    ratio = surface_ratio(start, point, render)
    if ratio is None:
        raise PlanningError(
            f"nothing solid is rendered at the target {rounded(point)} from the start view; pick a point on the object"
        )
    if ratio > _FAR_BEHIND:
        return [f"the target {rounded(point)} is in the air: the surface behind it is {ratio:.1f} times further away"]
    return []


def hides_target(view: View, point: Float[Tensor, "3"], render: Renderer) -> bool:
    """Whether a surface stands between the view and the target."""
    ratio = surface_ratio(view, point, render)
    return ratio is not None and ratio < _STANDS_IN_FRONT


def surface_ratio(view: View, point: Float[Tensor, "3"], render: Renderer) -> float | None:
    """Depth of the rendered surface in the target's direction over the target's own; None where nothing is solid."""
    aimed = aim_at(view, point)
    K = aimed.K.clone()
    K[:2, 2] = _PATCH / 2
    # A few pixels of the view itself, so that a small target is not lost among what is around it.
    rendered = render(View(K, aimed.c2w, _PATCH, _PATCH).to(dtype=torch.float32))
    inner = slice(_PATCH // 2 - 2, _PATCH // 2 + 2)
    depth = rendered.depth[inner, inner][rendered.alpha[inner, inner] > 0.5]
    depth = depth[depth > 0]
    return float(depth.median()) / float((point - view.position).norm()) if depth.numel() else None


def free_steps(views: Sequence[View], point: Tensor, render: Renderer, options: PathOptions) -> int:
    """How many of the steps from view to view, from the first on, meet no surface."""
    for count, (here, there) in enumerate(itertools.pairwise(views)):
        if is_blocked(here, there.position, point, render, options):
            return count
    return len(views) - 1


def is_blocked(here: View, end: Tensor, point: Tensor, render: Renderer, options: PathOptions) -> bool:
    """Whether a surface lies within the clearance of the straight step from ``here`` to ``end``.

    The depth image is taken looking along the step itself, not along the path's own gaze.
    """
    length = float((end - here.position).norm())
    if length <= 1e-9:
        return False
    looking = _checking(aim_at(here, end), options)
    rendered = render(looking)
    room = options.clearance * float((end - point).norm())
    rows, columns = torch.meshgrid(
        torch.arange(looking.height, device=looking.device) + 0.5,
        torch.arange(looking.width, device=looking.device) + 0.5,
        indexing="ij",
    )
    K, depth = looking.K, rendered.depth
    off_axis = torch.hypot((columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1])
    # Sideways distance of each pixel's surface from the step's line, which is the optical axis.
    sideways = depth * off_axis
    solid = (rendered.alpha > 0.5) & (depth > 0)
    near = solid & (depth < length + room) & (sideways < room)
    # One stray Gaussian is not a wall: of what lies around the axis, a twentieth has to be in the way.
    around = off_axis < max(room / (length + room), 0.02)
    return float(near.sum()) > 0.05 * float(around.sum())


def rounded(point: Tensor) -> str:
    """World coordinates [3] as text, "(x, y, z)" with three significant digits each."""
    return "(" + ", ".join(f"{value:.3g}" for value in point.tolist()) + ")"


def _checking(view: View, options: PathOptions) -> View:
    """The small wide-angle view that looks for obstacles, float32 as models are."""
    longest = _WIDEST_FOCAL * max(view.width, view.height)
    K = view.K.clone()
    K[0, 0], K[1, 1] = K[0, 0].clamp(max=longest), K[1, 1].clamp(max=longest)
    K[0, 2], K[1, 2] = view.width / 2, view.height / 2
    return View(K, view.c2w, view.width, view.height).resized(options.check_size).to(dtype=torch.float32)
