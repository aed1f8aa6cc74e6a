"""What the path tests share: an open scene, a view from somewhere, distances to the target."""

from __future__ import annotations

from functools import partial

import torch

from closeup_ns.paths.options import PathOptions
from closeup_ns.paths.plan import plan_path
from closeup_ns.views.view import View, look_at
from tests.scenes import analytic_renderer, intrinsics

TARGET = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
OPEN = analytic_renderer(wall=4.0, boxes=())
BALL = analytic_renderer(wall=None, boxes=(), spheres=[((0.0, 0.0, 4.0), 0.03)])
"""Nothing but a small ball at the target."""
QUICK = PathOptions(frames=61, check_steps=16, check_size=48)
BLOCK = ((-0.25, -0.25, 2.4), (0.25, 0.25, 2.6))
"""A box between the origin and the target."""
plan_dive, plan_orbit, plan_pull_back = (partial(plan_path, kind) for kind in ("dive", "orbit", "pull-back"))


def view_from(x: float, y: float, z: float, aim: tuple[float, float, float] = (0.0, 0.0, 4.0)) -> View:
    up = torch.tensor([0.1, -1.0, 0.0], dtype=torch.float64)
    position, target = torch.tensor([x, y, z]).double(), torch.tensor(aim).double()
    return look_at(position, target, up, intrinsics(160, 120), 160, 120)


def distances(views: list[View]) -> torch.Tensor:
    return torch.stack([(view.position - TARGET).norm() for view in views])


def aim_errors(views: list[View]) -> torch.Tensor:
    """How far each gaze is from the target's direction, as the sine of the angle."""
    return torch.stack(
        [torch.linalg.cross(v.forward, (TARGET - v.position) / (TARGET - v.position).norm()).norm() for v in views]
    )
