"""Overlap against a literal loop over pixels, and Appendix C against its own formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.errors import CloseupError
from closeup_ns.views import overlap
from closeup_ns.views.overlap import (
    center_weights,
    coverage,
    discount_factor,
    distance_discount,
    shared_fraction,
    similarity,
    stack_depths,
)
from closeup_ns.views.view import View
from tests.scenes import analytic_renderer, facing_views, intrinsics


def scene(count: int, dtype: torch.dtype = torch.float64) -> tuple[list[View], list[torch.Tensor]]:
    """Views of a wall with a box, landscape and portrait mixed, one of which sees nothing on half of its pixels."""
    render = analytic_renderer()
    views = facing_views(count, size=(16, 12), dtype=dtype) + facing_views(count, size=(9, 14), seed=1, dtype=dtype)
    depths = [render(view).depth for view in views]
    depths[0][:, :8] = 0.0
    return views, depths


def literal_fraction(
    source: View, source_depth: torch.Tensor, view: View, depth: torch.Tensor, weights: torch.Tensor, depth_rel: float
) -> float:
    seen = total = 0.0
    for row in range(source.height):
        for column in range(source.width):
            weight = float(weights[row, column])
            total += weight
            d = float(source_depth[row, column])
            if d <= 0:
                continue
            ray = torch.linalg.inv(source.K) @ torch.tensor([column + 0.5, row + 0.5, 1.0], dtype=torch.float64)
            world = source.c2w[:3, :3] @ (ray * d) + source.position
            x, y, z = (view.K @ (view.c2w[:3, :3].T @ (world - view.position))).tolist()
            if z <= 0 or not (0 <= x / z < view.width and 0 <= y / z < view.height):
                continue
            if abs(float(depth[int(y / z), int(x / z)]) - z) <= depth_rel * z:
                seen += weight
    return seen / total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk", [10**6, 300])
def test_shared_fraction_equals_the_literal_loop(
    weighted: bool, chunk: int, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(overlap, "_CHUNK_ELEMENTS", chunk)
    views, depths = scene(3)
    batch = stack_depths(views, depths)
    weights = torch.rand(batch.depth.shape, generator=generator, dtype=torch.float64) if weighted else None
    result = shared_fraction(batch, batch[:4], weights, depth_rel=0.02)
    for i, source in enumerate(views):
        literal = torch.ones_like(depths[i]) if weights is None else weights[i]
        for j in range(4):
            expected = literal_fraction(source, depths[i], views[j], depths[j], literal, 0.02)
            assert float(result[i, j]) == pytest.approx(expected, abs=1e-9)


def test_a_pixel_without_depth_is_not_taken_for_the_camera_itself() -> None:
    """Depth 0 lifts to the camera's centre, which another view may well see a surface at."""
    c2w = torch.eye(4, dtype=torch.float64)
    ahead = c2w.clone()
    ahead[2, 3] = 4.0
    views = [View(intrinsics(16, 12), ahead, 16, 12), View(intrinsics(16, 12), c2w, 16, 12)]
    wall = analytic_renderer(boxes=())(views[1]).depth
    batch = stack_depths(views, [torch.zeros_like(wall), wall])
    assert float(shared_fraction(batch, batch)[0, 1]) == 0.0


def test_similarity_is_symmetric_with_zero_diagonal_and_little_changed_by_the_stride() -> None:
    render = analytic_renderer()
    views = facing_views(6, size=(128, 96))
    batch = stack_depths(views, [render(v).depth for v in views])
    full, coarse = similarity(batch, stride=1), similarity(batch, stride=2)
    assert torch.equal(full, full.T)
    assert full.diagonal().abs().max() == 0
    assert 0.3 < float(full[0, 1]) <= 1.0
    torch.testing.assert_close(full, coarse, atol=0.01, rtol=0)


def test_coverage_weighs_the_centre_and_the_padding_not() -> None:
    views, depths = scene(2)
    batch = stack_depths(views, depths)
    weights = center_weights(batch)
    assert weights[0, 5, 7] > weights[0, 0, 0]
    assert weights[:, 12:, :][:2].abs().max() == 0
    column, row = 3.5 - 8, 2.5 - 6
    assert float(weights[0, 2, 3]) == pytest.approx(float(torch.tensor(-(column**2 + row**2) / (2 * 3.0**2)).exp()))
    everything = coverage(batch, batch)
    assert everything.shape == (4,)
    expected = shared_fraction(batch, batch, weights).mean(0)
    torch.testing.assert_close(everything, expected)


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.999, 0.999))
def test_appendix_c_beta_undoes_the_growth_of_the_area(offset: float) -> None:
    beta = float(discount_factor(torch.tensor(offset, dtype=torch.float64)))
    area = 1 / (1 + offset) ** 2 + 1 / (1 - offset) ** 2
    assert area * beta == pytest.approx(1.0, rel=1e-9)
    assert beta == pytest.approx((1 - offset**2) ** 2 / (2 * (1 + offset**2)), rel=1e-12)


def test_distance_discount_peaks_in_the_middle_and_never_vanishes() -> None:
    distances = torch.linspace(1.0, 3.0, 201, dtype=torch.float64)
    paper = distance_discount(distances, 1.0, 3.0)
    assert int(paper.argmax()) == 100
    assert float(paper.max()) == pytest.approx(0.5)
    assert float(paper.min()) > 0


def test_no_views_and_a_frontier_beyond_the_known_ones_are_refused() -> None:
    with pytest.raises(CloseupError, match="no views"):
        stack_depths([], [])
    with pytest.raises(CloseupError, match="frontier's distance"):
        distance_discount(torch.ones(1), 3.0, 1.0)
