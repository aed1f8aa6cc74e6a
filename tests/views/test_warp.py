"""Warping between views, against literal formulas."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.views.view import View, aim_at
from closeup_ns.views.warp import backproject, inside, pixel_grid, project, sample, transfer_matrix
from tests.scenes import facing_views, intrinsics


def test_project_inverts_backproject() -> None:
    generator = torch.Generator().manual_seed(0)
    for view in facing_views(4):
        depth = torch.rand(view.height, view.width, generator=generator, dtype=torch.float64) + 0.5
        uv, z = project(view, backproject(view, depth))
        torch.testing.assert_close(z, depth)
        torch.testing.assert_close(uv, pixel_grid(view.height, view.width, dtype=torch.float64))


def test_points_behind_the_camera_are_never_inside() -> None:
    view = View(intrinsics(64, 48), torch.eye(4, dtype=torch.float64), 64, 48)
    points = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    uv, z = project(view, points)
    assert torch.isfinite(uv).all()
    assert inside(view, uv, z).tolist() == [False, False, True]


def test_the_image_spans_zero_to_width() -> None:
    view = View(intrinsics(4, 2), torch.eye(4), 4, 2)
    uv = torch.tensor([[0.0, 0.0], [3.999, 1.999], [4.0, 1.0], [1.0, 2.0], [-0.001, 1.0]])
    assert inside(view, uv, torch.ones(5)).tolist() == [True, True, False, False, False]


def test_sampling_at_centres_is_the_image_and_between_them_linear() -> None:
    image = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grid = pixel_grid(5, 7, dtype=torch.float64)
    torch.testing.assert_close(sample(image, grid), image)
    assert torch.equal(sample(image, grid + 0.49, "nearest"), image)
    middle = sample(image, torch.tensor([[3.0, 2.5], [3.5, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(middle[:, 0], (image[:, 2, 2] + image[:, 2, 3]) / 2)
    torch.testing.assert_close(middle[:, 1], (image[:, 1, 3] + image[:, 2, 3]) / 2)
    # The outer half pixel is not darkened by what lies outside.
    torch.testing.assert_close(sample(image, torch.tensor([[0.0, 0.0]], dtype=torch.float64))[:, 0], image[:, 0, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(-1e5, 1e5))
def test_transfer_equals_lifting_and_projecting(seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    source, destination = facing_views(2, seed=seed)
    destination = aim_at(destination, torch.tensor([0.4, 0.1, 3.0], dtype=torch.float64))
    uv = torch.rand(10, 2, generator=generator, dtype=torch.float64) * 100
    depth = torch.rand(10, generator=generator, dtype=torch.float64) + 2.0
    lifted = torch.stack([uv[:, 0] * depth, uv[:, 1] * depth, depth, torch.ones_like(depth)])
    matrix = transfer_matrix(source.K, source.c2w, destination.K, destination.c2w)
    x, y, z = matrix @ lifted
    rays = torch.cat([uv, torch.ones(10, 1, dtype=torch.float64)], 1) @ torch.linalg.inv(source.K).T
    expected, expected_z = project(destination, (rays * depth[:, None]) @ source.c2w[:3, :3].T + source.position)
    torch.testing.assert_close(torch.stack([x / z, y / z], -1), expected)
    torch.testing.assert_close(z, expected_z)
    # A scene far from the world's origin is the same scene.
    far = [v.c2w.clone() for v in (source, destination)]
    for c2w in far:
        c2w[:3, 3] += offset
    moved = transfer_matrix(source.K, far[0], destination.K, far[1])
    torch.testing.assert_close(moved, matrix, atol=1e-6, rtol=1e-6)
