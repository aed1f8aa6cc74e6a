"""Where cameras look and how they are split, on cameras whose answer is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.bench.scenes.splits import closer_views, looked_at, meeting_point, point_at_pixel, split_by_distance
from closeup_ns.errors import DataError
from closeup_ns.views.view import View, look_at
from closeup_ns.views.warp import project, unproject
from tests.scenes import facing_views, intrinsics

UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
TARGET = torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)


def ring(distances: list[float]) -> list[View]:
    """Cameras around the target at given distances, all aimed at it."""
    views = []
    for index, distance in enumerate(distances):
        angle = torch.tensor(0.4 * index)
        direction = torch.stack([torch.sin(angle), torch.tensor(0.1), -torch.cos(angle)]).double()
        position = TARGET + distance * direction / direction.norm()
        views.append(look_at(position, TARGET, UP, intrinsics(80, 60), 80, 60))
    return views


def parallel(count: int) -> list[View]:
    forward = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    positions = [torch.tensor([0.2 * i, 0.1 * (i % 3), 0.0], dtype=torch.float64) for i in range(count)]
    return [look_at(p, p + forward, UP, intrinsics(80, 60), 80, 60) for p in positions]


def test_aimed_cameras_meet_at_the_target():
    meeting = meeting_point(ring([3.0, 2.0, 4.0, 5.0]))
    assert meeting is not None and torch.allclose(meeting, TARGET)
    assert torch.allclose(looked_at(ring([3.0, 2.0, 4.0])), TARGET)


def test_cameras_side_by_side_look_at_the_points_in_their_middle():
    views = parallel(6)
    grid = torch.linspace(-2, 2, 41, dtype=torch.float64)
    wall = torch.stack([*torch.meshgrid(grid, grid, indexing="ij"), torch.full((41, 41), 5.0).double()], -1)
    found = looked_at(views, wall.reshape(-1, 3))
    assert found[2] == pytest.approx(5.0) and abs(float(found[0]) - 0.5) < 0.11
    with pytest.raises(DataError, match="give the scene a pixel"):
        looked_at(views)


def test_a_pixel_is_lifted_to_the_depth_of_the_points_around_it():
    view = facing_views(1)[0]
    pixels = torch.rand(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = pixels * torch.tensor([view.width, view.height])
    depth = torch.where(pixels[:, 0] < 80, 3.0, 6.0).double()
    points = unproject(view, pixels, depth)
    for column, expected in ((30.0, 3.0), (130.0, 6.0)):
        point = point_at_pixel(view, column, 40.0, points)
        uv, z = project(view, point)
        assert float(z) == pytest.approx(expected)
        assert torch.allclose(uv, torch.tensor([column + 0.5, 40.5], dtype=torch.float64))
    with pytest.raises(DataError, match="outside"):
        point_at_pixel(view, 1000.0, 40.0, points)


@given(
    distances=st.lists(st.floats(1.0, 10.0), min_size=6, max_size=30),
    share=st.floats(0.1, 0.5),
    threshold=st.floats(1.05, 3.0),
)
@settings(deadline=None, max_examples=50)
def test_no_photograph_is_in_two_parts_and_far_is_far(distances: list[float], share: float, threshold: float):
    views = ring(distances)
    try:
        split = split_by_distance(views, TARGET, share, threshold)
    except DataError:
        return  # too few are far; the message is tested elsewhere
    parts = [*split.train, *split.test, *split.left_out]
    assert sorted(parts) == list(range(len(views)))
    median = sorted(distances[i] for i in split.test)[(len(split.test) - 1) // 2]
    assert min(distances[i] for i in split.train) > threshold * median - 1e-9
    assert max(distances[i] for i in split.test) <= min(distances[i] for i in (*split.train, *split.left_out)) + 1e-9


def test_test_views_come_closer_by_the_scale_and_look_at_the_target():
    views = facing_views(8, target=TARGET.tolist())
    found = closer_views(views, TARGET, (3.0, 9.0), 5)
    assert len(found) == 10 and [scale for _, scale, _ in found] == [3.0] * 5 + [9.0] * 5
    for index, scale, view in found:
        before, after = ((v.position - TARGET).norm() for v in (views[index], view))
        assert float(before / after) == pytest.approx(scale)
        uv, _ = project(view, TARGET)
        assert torch.allclose(uv, view.K[:2, 2], atol=1e-6)
