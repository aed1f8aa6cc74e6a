"""Gaussians without a point cloud start in what the cameras see."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.model.seeding import DEFAULT_FAR, DEFAULT_NEAR, frustum_points
from closeup_ns.views.warp import project
from tests.scenes import facing_views

VIEWS = [view.to(dtype=torch.float32) for view in facing_views(3, size=(20, 14))]
BOUNDS = torch.tensor([[1.0, 5.0], [2.0, 8.0], [0.5, 3.0]])
COUNT = 3000


def photographs() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(14, 20, 3, generator=generator) for _ in VIEWS]


def test_each_point_lies_in_its_cameras_frustum_behind_its_pixel(generator: torch.Generator) -> None:
    images = photographs()
    points, colors = frustum_points(VIEWS, images, BOUNDS, COUNT, generator)
    assert points.shape == (COUNT, 3) and colors.shape == (COUNT, 3) and colors.dtype == torch.uint8
    each = COUNT // 3
    for index, (view, image, (near, far)) in enumerate(zip(VIEWS, images, BOUNDS.tolist(), strict=True)):
        uv, z = project(view, points[index * each : (index + 1) * each])
        assert z.min() >= near * 0.999 and z.max() <= far * 1.001
        assert uv.min() > -1e-3 and uv[:, 0].max() < 20.001 and uv[:, 1].max() < 14.001
        safe = ((uv % 1 > 0.01) & (uv % 1 < 0.99)).all(-1)
        column, row = uv[safe].long().unbind(-1)
        expected = (image[row, column] * 255).round().to(torch.uint8)
        assert torch.equal(colors[index * each : (index + 1) * each][safe], expected)


def test_depth_is_uniform_in_disparity(generator: torch.Generator) -> None:
    points, _ = frustum_points(VIEWS, photographs(), BOUNDS, 6000, generator)
    share = (1 / project(VIEWS[0], points[:2000])[1] - 1 / 5.0) / (1 / 1.0 - 1 / 5.0)
    edges = [0.25, 0.5, 0.75]
    assert [float((share < edge).float().mean()) for edge in edges] == pytest.approx(edges, abs=0.04)


def test_the_same_seed_gives_the_same_points() -> None:
    first, second = (
        frustum_points(VIEWS, photographs(), BOUNDS, 100, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert len(first[0]) == 100  # not a multiple of the number of views


def test_without_bounds_the_cameras_reach_sets_the_scale(generator: torch.Generator) -> None:
    centers = torch.stack([view.position for view in VIEWS])
    reach = float((centers - centers.mean(0)).norm(dim=-1).max())
    points, _ = frustum_points(VIEWS, photographs(), None, COUNT, generator)
    z = project(VIEWS[0], points[: COUNT // 3])[1]
    assert z.min() >= 0.999 * DEFAULT_NEAR * reach and z.max() <= 1.001 * DEFAULT_FAR * reach
