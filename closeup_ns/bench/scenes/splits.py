"""The point that cameras look at, their distances to it, and the split by distance. Geometry only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import DataError
from closeup_ns.views.view import View, aim_at, move_closer
from closeup_ns.views.warp import inside, most_central, project, unproject

_PARALLEL = 1e6
"""Condition of the least squares above which axes do not meet."""
_NEAREST_POINTS = 9
"""Sparse points around a clicked pixel whose median depth it gets."""
FEWEST = 3
"""Photographs that a split must leave to train on, at least."""


@dataclass(frozen=True)
class Split:
    """Indices of photographs."""

    train: list[int]
    test: list[int]
    left_out: list[int]
    """Neither far nor near."""
    distance: float
    """Median distance of the photographs trained on, capture units."""


def looked_at(views: Sequence[View], points: Float[Tensor, "N 3"] | None = None) -> Float[Tensor, "3"]:
    """What the cameras look at: where their axes meet, if most of them have that in the image.

    Cameras side by side, whose axes do not meet, look at the sparse points in the middle of their images instead.

    Raises:
        DataError: the axes do not meet, and there are no points.
    """
    meeting = meeting_point(views)
    if meeting is not None:
        seen = [bool(inside(view, *project(view, meeting))) for view in views]
        if sum(seen) > len(views) / 2:
            return meeting
    if points is None or len(points) == 0:
        raise DataError("the cameras' axes do not meet and there are no points, so no object: give the scene a pixel")
    middles = [point_at_pixel(view, view.width / 2, view.height / 2, points) for view in views]
    return torch.stack(middles).median(dim=0).values


def meeting_point(views: Sequence[View]) -> Float[Tensor, "3"] | None:
    """The point nearest to all optical axes, least squares; None where they are parallel."""
    forward = torch.stack([view.forward for view in views]).double()
    position = torch.stack([view.position for view in views]).double()
    across = torch.eye(3, dtype=torch.float64) - forward[:, :, None] * forward[:, None, :]
    normal = across.sum(0)
    if torch.linalg.cond(normal) > _PARALLEL:
        return None
    return torch.linalg.solve(normal, (across @ position[:, :, None]).sum(0)[:, 0])


def point_at_pixel(view: View, column: float, row: float, points: Float[Tensor, "N 3"]) -> Float[Tensor, "3"]:
    """The surface point behind a pixel: the median depth of the sparse points that project nearest to it.

    Raises:
        DataError: the pixel is outside of the image, or no sparse point is in it.
    """
    if not (0 <= column < view.width and 0 <= row < view.height):
        raise DataError(f"the pixel {column:g}, {row:g} lies outside of a photograph of {view.width}x{view.height}")
    uv, z = project(view, points)
    seen = inside(view, uv, z)
    if not seen.any():
        raise DataError("no sparse point lies in that photograph, so the pixel has no depth")
    pixel = uv.new_tensor([column + 0.5, row + 0.5])
    nearest = (uv[seen] - pixel).norm(dim=-1).argsort()[:_NEAREST_POINTS]
    return unproject(view, pixel, z[seen][nearest].median())


def split_by_distance(views: Sequence[View], target: Float[Tensor, "3"], test_share: float, threshold: float) -> Split:
    """The nearest share is the test; trained on is what is farther than ``threshold`` times its median distance.

    Raises:
        DataError: that leaves no photographs on one of the sides.
    """
    distance = torch.stack([(view.position - target).norm() for view in views])
    order = distance.argsort(stable=True).tolist()
    test = sorted(order[: max(1, round(test_share * len(views)))])
    limit = threshold * float(distance[test].median())
    train = [index for index in range(len(views)) if index not in test and float(distance[index]) > limit]
    if len(train) < FEWEST:
        farthest = float(distance.max()) / float(distance[test].median())
        raise DataError(
            f"only {len(train)} photographs are {threshold:g} times farther away than the nearest {len(test)}; the "
            f"farthest is {farthest:.2f} times. Lower the threshold, or the share of the test"
        )
    rest = [index for index in range(len(views)) if index not in test and index not in train]
    return Split(train, test, rest, float(distance[train].median()))


def closer_views(
    views: Sequence[View], target: Float[Tensor, "3"], scales: Sequence[float], count: int
) -> list[tuple[int, float, View]]:
    """``count`` of the views, those that show the target most centrally, moved ``scales`` times closer and aimed at it.

    Returns (index of the view, scale, view), scale after scale (paper, appendix D: five target views per scale).

    Raises:
        DataError: no view has the target in its image.
    """
    chosen = sorted(most_central(views, target)[:count])
    if not chosen:
        raise DataError("no photograph has the object of interest in it")
    return [(i, scale, aim_at(move_closer(views[i], target, scale), target)) for scale in scales for i in chosen]
