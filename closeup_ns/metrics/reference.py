"""The photograph that a close-up is compared with where it has none of its own: the one with most coverage of it (5.1).

Coverage is that of section 4.3.1, with the close-up as the source. The paper says no more. Close up, many photographs
cover everything; among those within a hundredth of the best, the one that resolves the surface finest is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.views.overlap import center_weights, shared_fraction, stack_depths
from closeup_ns.views.view import View
from closeup_ns.views.warp import backproject, project

LONG_SIDE = 96
"""Pixels of the close-up that are tested, along its long side."""
AS_GOOD = 0.01
"""Coverage that two photographs may differ by and count as equal."""


def plane_depth(view: View, point: Float[Tensor, "3"]) -> Float[Tensor, "H W"]:
    """z-depth of the plane through ``point`` that faces ``view``: what a close-up shows when no model may say so.

    CloseupError where the point is behind the camera.
    """
    depth = float((point.to(view.c2w) - view.position) @ view.forward)
    if depth <= 0:
        raise CloseupError(f"the point {point.tolist()} lies behind the camera that should look at it")
    return torch.full((view.height, view.width), depth, dtype=view.c2w.dtype, device=view.device)


def choose_reference(
    close: View,
    depth: Float[Tensor, "H W"],
    photographs: Sequence[View],
    photograph_depths: Sequence[Float[Tensor, "h w"]] | None = None,
) -> int | None:
    """Which of ``photographs`` has most coverage of a close-up; None where none sees any of it.

    Args:
        close: The close-up's camera; ``depth`` is its z-depth, 0 where nothing is.
        photographs: Candidates, in the same world frame.
        photograph_depths: Their z-depths at any size, for the occlusion test; None tests the image borders only.
    """
    source = stack_depths([close], [depth])
    if photograph_depths is None:
        small = [photo.resized(LONG_SIDE) for photo in photographs]
        maps = [depth.new_zeros(photo.height, photo.width) for photo in small]
        seen_by, tolerance = stack_depths(small, maps), float("inf")
    else:
        fitting = [photo.scaled_to(d.shape[1], d.shape[0]) for photo, d in zip(photographs, photograph_depths)]
        seen_by, tolerance = stack_depths(fitting, photograph_depths), 0.05
    covered = shared_fraction(source, seen_by, center_weights(source), tolerance)[0]
    best = float(covered.max())
    if best <= 0:
        return None
    points = backproject(close, depth)[depth > 0]
    candidates = torch.nonzero(covered >= best - AS_GOOD)[:, 0].tolist()
    return max(candidates, key=lambda index: _pixels_per_unit(photographs[index], points))


def _pixels_per_unit(photograph: View, points: Float[Tensor, "n 3"]) -> float:
    """How finely a photograph resolves what lies at ``points``: focal length over median depth."""
    _, z = project(photograph, points)
    return float(photograph.K[0, 0]) / max(float(z.median()), 1e-9)
