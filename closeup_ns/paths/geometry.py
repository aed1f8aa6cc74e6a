"""Easing and turns. Pure geometry."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.views.view import View


def soft(time: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Progress in [0, 1] at ``time`` in [0, 1]: monotone, symmetric, at rest at its ends."""
    return time * time * (3.0 - 2.0 * time)


def smooth(time: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """As `soft`, and without acceleration at its ends."""
    return time**3 * (time * (time * 6.0 - 15.0) + 10.0)


def progress(frames: int) -> Float[Tensor, "frames"]:
    """`smooth` progress of each frame, from exactly 0 to exactly 1; float64 on the CPU."""
    return smooth(torch.linspace(0.0, 1.0, frames, dtype=torch.float64))


def between(first: Float[Tensor, "3"], second: Float[Tensor, "3"], share: float) -> Float[Tensor, "3"]:
    """The unit vector at ``share`` of the way on the great circle from ``first`` to ``second`` (unit vectors)."""
    angle = torch.atan2(torch.linalg.cross(first, second).norm(), torch.dot(first, second))
    if float(angle) < 1e-9:
        return first
    return (torch.sin((1.0 - share) * angle) * first + torch.sin(share * angle) * second) / torch.sin(angle)


def vertical_fov(view: View) -> float:
    """Vertical field of view in radians."""
    return 2.0 * math.atan(0.5 * view.height / float(view.K[1, 1]))
