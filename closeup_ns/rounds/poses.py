"""Poses good to a native pixel: photographs are registered by their native views, the gauge held (issue 11.4).

COLMAP's poses are good to about a pixel of what COLMAP saw; a crop of the original shows the rest. Each native view
is registered against the model's render (`closeup_ns.views.registration`); a photograph moves by the mean of what its
views say, and what is common to all photographs, which is no property of any, is taken out. Training on the moved
crops sharpens the model, and the next registration is finer. Only native views are moved: a photograph as a whole
fits its pose as given best, since what a narrow view needs also makes up for the lens model's error at that place
(flower, 1000 steps: far 28.35 dB where the photographs moved along, 28.82 where they did not, the same at 9x).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.progress import track
from closeup_ns.rounds.run import Run
from closeup_ns.views.registration import Registration, compose, register
from closeup_ns.views.view import View

SAME = 1e-3
"""Common motions that move pixels alike but for this share (squared) are one: narrow views cannot tell them apart."""


@torch.no_grad()
def refine_poses(run: Run, number: int) -> None:
    """Register round ``number``'s native views and move them (`Photographs.pose_motion`)."""
    data, shifts = run.photographs, []
    found: dict[int, list[Registration]] = {}  # photograph -> what its views say
    for native in track(run.native_views(number), "registering native views"):
        image, counted = data.native_image(native)
        image = run.model.unexposed(image, native.photograph)
        run.give_way()
        fit = register(partial(run.model.render_view, stream=number), data.native_view(native), image, counted)
        found.setdefault(native.photograph, []).append(fit)
        shifts.append(fit.shift)
    if not shifts:
        return
    moved, motion = sorted(found), data.pose_motion.clone()
    for index in moved:
        mean = torch.stack([fit.motion for fit in found[index]]).mean(0)
        motion[index] = compose(motion[index], mean.to(motion))
    metric = torch.stack([torch.stack([fit.metric for fit in found[index]]).mean(0) for index in moved])
    motion[moved] = without_gauge(motion[moved], metric.to(motion), [data.train_view(index) for index in moved])
    data.pose_motion.copy_(motion)
    CONSOLE.print(
        f"Round {number}: poses of {len(moved)} photographs registered to their originals, "
        f"{float(torch.tensor(shifts).median()):.2f} native pixels (median), at most {max(shifts):.2f}",
        highlight=False,
    )


def without_gauge(
    motion: Float[Tensor, "n 6"], metric: Float[Tensor, "n 6 6"], views: Sequence[View]
) -> Float[Tensor, "n 6"]:
    """``motion`` without what is one motion, turn or change of size of all cameras together.

    That part moves the scene, not the photographs against each other: training would follow it, and poses that were
    not refined (held-out photographs, the user's camera paths) would fit no longer. It is the common part of how the
    *pixels* move: in a narrow view a rotation and a translation nearly cancel, so that motions which hardly move a
    pixel can have a large common part, and taking that out moved the target instead (flower at 9x lost 1 dB).

    Args:
        motion: rotation vectors in radians and translations in world units, in each camera's axes.
        metric: of each camera, `Registration.metric`.
        views: the cameras that it moves.
    """
    rotations = torch.stack([view.c2w[:3, :3] for view in views]).to(motion)
    centers = torch.stack([view.position for view in views]).to(motion)
    centers = centers - centers.mean(0)
    eye = torch.eye(3).to(motion)
    zero = torch.zeros(len(views), 3, 3).to(motion)
    common_move = torch.cat([zero, eye.expand_as(zero)], dim=2)  # [n, mode, 6], in world axes
    around = torch.linalg.cross(eye.expand_as(zero), centers[:, None].expand_as(zero), dim=-1)
    common_turn = torch.cat([eye.expand_as(zero), around], dim=2)
    growth = torch.cat([torch.zeros_like(centers), centers], dim=1)[:, None]
    modes = torch.cat([common_move, common_turn, growth], dim=1)
    modes = torch.cat([modes[..., :3] @ rotations, modes[..., 3:] @ rotations], dim=2)  # in each camera's axes
    normal = torch.einsum("nki,nij,nlj->kl", modes, metric, modes)
    right = torch.einsum("nki,nij,nj->k", modes, metric, motion)
    unit = normal.diagonal().clamp_min(torch.finfo(normal.dtype).tiny).rsqrt()  # radians beside world units
    shared = unit * (torch.linalg.pinv(unit[:, None] * normal * unit, rtol=SAME, hermitian=True) @ (unit * right))
    return motion - torch.einsum("nki,k->ni", modes, shared)
