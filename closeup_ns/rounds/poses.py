"""Poses good to a native pixel: each native view is registered to the model, the gauge held (issue 11.4).

COLMAP's poses are good to about a pixel of what COLMAP saw; a crop of the original shows the rest. Each native view
is registered against the model's render (`closeup_ns.views.registration`); what is common to all of them, which is no
property of any, is taken out. Training on the moved crops sharpens the model, and the next registration is finer.
A photograph as a whole stays, and its crops move each by itself: what a narrow view needs also makes up for the lens
model's error at that place (flower, 1000 steps: far 28.35 dB where the photographs moved along, 28.82 where they did
not; on fern four crops of one photograph are off by up to two pixels from each other).
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
from closeup_ns.views.registration import compose, register
from closeup_ns.views.view import View

SAME = 1e-3
"""Common motions that move pixels alike but for this share (squared) are one: narrow views cannot tell them apart."""


@torch.no_grad()
def refine_poses(run: Run, number: int) -> None:
    """Register round ``number``'s native views and move them (`Photographs.pose_motion`)."""
    data, natives = run.photographs, run.native_views(number)
    if not natives:
        return
    fits = []
    for native in track(natives, "registering native views"):
        image, counted = data.native_image(native)
        image = run.model.unexposed(image, native.photograph)
        run.give_way()
        fits.append(register(partial(run.model.render_view, stream=number), data.native_view(native), image, counted))
    still = torch.zeros(6, dtype=torch.float64)
    motion = [compose(data.pose_motion.get(native.name, still), fit.motion.cpu()) for native, fit in zip(natives, fits)]
    cameras = [data.train_view(native.photograph) for native in natives]
    left = without_gauge(torch.stack(motion), torch.stack([fit.metric for fit in fits]).to(motion[0]), cameras)
    data.pose_motion.update(zip((native.name for native in natives), left))
    shifts = torch.tensor([fit.shift for fit in fits])
    CONSOLE.print(
        f"Round {number}: {len(natives)} native views registered, by {float(shifts.median()):.2f} of their pixels "
        f"(median), at most {float(shifts.max()):.2f}",
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
