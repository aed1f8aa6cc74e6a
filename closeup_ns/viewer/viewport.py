"""Between viser's cameras and our views, and how close a camera is. No viewer, no threads, no state.

viser's cameras and ours have the same axes (OpenCV: x right, y down, z forward); its world is nerfstudio's, enlarged
by ``VISER_NERFSTUDIO_SCALE_RATIO``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import viser.transforms as vtf
from jaxtyping import Float
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.paths.start import choose_start
from closeup_ns.planning.target import Target
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, aim_at
from closeup_ns.views.warp import project

ZOOM_BASE = 3.0
"""The slider counts in the paper's rounds: each step of one comes three times closer."""
_FIRST_SIZE = 96


def to_viser(point: Float[Tensor, "3"] | Sequence[float]) -> tuple[float, float, float]:
    """A point [3] of nerfstudio's world in viser's, which is that world enlarged."""
    x, y, z = (float(value) * VISER_NERFSTUDIO_SCALE_RATIO for value in point)
    return x, y, z


def pose_of(view: View) -> tuple[tuple[float, float, float, float], tuple[float, float, float]]:
    """Where viser shows ``view``: its rotation wxyz, and its position in viser's enlarged world."""
    w, x, y, z = (float(v) for v in vtf.SO3.from_matrix(view.c2w[:3, :3].double().cpu().numpy()).wxyz)
    return (w, x, y, z), to_viser(view.position)


def viewport_view(
    wxyz: Sequence[float] | np.ndarray,
    position: Sequence[float] | np.ndarray,
    fov: float,
    aspect: float,
    long_side: int,
) -> View:
    """What a viser camera sees, on the CPU: ``fov`` vertical in radians, ``aspect`` width over height."""
    shape = (long_side, long_side / aspect) if aspect >= 1.0 else (long_side * aspect, long_side)
    width, height = (max(2, round(side)) for side in shape)
    focal = 0.5 * height / math.tan(0.5 * fov)
    K = torch.tensor([[focal, 0.0, 0.5 * width], [0.0, focal, 0.5 * height], [0.0, 0.0, 1.0]])
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.from_numpy(vtf.SO3(np.asarray(wxyz, dtype=np.float64)).as_matrix())
    c2w[:3, 3] = torch.as_tensor(np.asarray(position, dtype=np.float64) / VISER_NERFSTUDIO_SCALE_RATIO)
    return View(K, c2w, width, height)


def zoom_of(position: Float[Tensor, "3"], target: Target) -> float:
    """How many times closer to the target than the training cameras that see it (median) ``position`` is."""
    away = float((position.double().cpu() - target.point.double().cpu()).norm())
    return target.distance / max(away, 1e-9)


def come_closer(position: Float[Tensor, "3"], target: Target, zoom: float) -> Float[Tensor, "3"]:
    """The point on the line from the target through ``position`` that is ``zoom`` times closer than training."""
    point = target.point.double().cpu()
    away = position.double().cpu() - point
    length = away.norm()
    direction = away / length if float(length) > 1e-9 else torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return point + direction * (target.distance / zoom)


def first_view(
    names: Sequence[str], views: Sequence[View], target: Target | None, render: Renderer
) -> tuple[View, float]:
    """The view of a client that has just connected, and how far ahead its camera orbits.

    The photograph that is aimed best at the target and sees it; before there is a target, the first photograph.
    """
    if target is not None:
        try:
            view, _ = choose_start(views, names, None, target.point, render)
        except PlanningError:  # it lies in no photograph: one can look at it from the first all the same
            view = aim_at(views[0], target.point.to(views[0].c2w))
        return view, float((view.position - target.point.to(view.position)).norm())
    small = render(views[0].resized(_FIRST_SIZE))
    depth = small.depth[(small.alpha > 0.5) & (small.depth > 0)]
    return views[0], float(depth.median()) if depth.numel() else 1.0


def is_behind(view: View, point: Float[Tensor, "3"]) -> bool:
    """Whether ``point`` (world) lies behind the camera."""
    return float(project(view, point.to(view.c2w)[None])[1][0]) <= 0.0
