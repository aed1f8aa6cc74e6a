"""Easing, lenses and turns. Pure geometry."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.paths.options import Ease
from closeup_ns.views.view import View
from closeup_ns.views.warp import inside, project


def eased(time: Float[Tensor, "n"], ease: Ease) -> Float[Tensor, "n"]:
    """Progress in [0, 1] at ``time`` in [0, 1]: monotone, symmetric, with its ends at rest unless linear."""
    if ease == "linear":
        return time
    if ease == "soft":
        return time * time * (3.0 - 2.0 * time)
    return time**3 * (time * (time * 6.0 - 15.0) + 10.0)


def progress(frames: int, ease: Ease) -> Float[Tensor, "frames"]:
    """Eased progress of each frame, from exactly 0 to exactly 1; float64 on the CPU."""
    return eased(torch.linspace(0.0, 1.0, frames, dtype=torch.float64), ease)


def between(first: Float[Tensor, "3"], second: Float[Tensor, "3"], share: float) -> Float[Tensor, "3"]:
    """The unit vector at ``share`` of the way on the great circle from ``first`` to ``second`` (unit vectors)."""
    angle = torch.atan2(torch.linalg.cross(first, second).norm(), torch.dot(first, second))
    if float(angle) < 1e-9:
        return first
    return (torch.sin((1.0 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def narrowed(start: View, factor: float, narrow: bool) -> Float[Tensor, "3 3"]:
    """The start view's intrinsics, ``factor`` times longer where the lens narrows; never wider than the start's."""
    K = start.K.clone()
    if narrow and factor > 1.0:
        K[0, 0] *= factor
        K[1, 1] *= factor
    return K


def closest_distance(distance: float, reference: float, zoom: float, narrow: bool) -> float:
    """The distance at which the target appears ``zoom`` times larger than from ``reference`` with the start's lens.

    A lens that narrows does so by ``distance`` / the distance sought, so its magnification multiplies the approach's.
    """
    return math.sqrt(reference * distance / zoom) if narrow else reference / zoom


def zoom_at(away: float, distance: float, reference: float, narrow: bool) -> float:
    """The magnification at distance ``away``: the inverse of `closest_distance`."""
    return reference / away * (max(1.0, distance / away) if narrow else 1.0)


def vertical_fov(view: View) -> float:
    """Vertical field of view in radians."""
    return 2.0 * math.atan(0.5 * view.height / float(view.K[1, 1]))


def has_in_image(view: View, target: Float[Tensor, "3"]) -> bool:
    """Whether world point ``target`` projects into the view's image."""
    return bool(inside(view, *project(view, target.to(view.position)), near=0.0))
