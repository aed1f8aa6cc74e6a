"""The finest pixel that sees a point, and the 3D filter: against closed forms and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.model.regularize import finest_footprint, smooth_3d
from closeup_ns.views.view import View
from tests.scenes import orbit_views

sizes = st.lists(st.tuples(*[st.floats(1e-3, 1e3)] * 3), min_size=1, max_size=5)


def footprint_by_loop(points: np.ndarray, views: list[View], margin: float) -> list[float]:
    """One point and one view at a time, in plain numbers."""
    finest = []
    for point in points:
        best = math.inf
        for view in views:
            x, y, z = (np.linalg.inv(view.c2w.numpy()) @ [*point, 1.0])[:3]
            if z <= 1e-2:
                continue
            K = view.K.numpy()
            u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
            across = -margin * view.width < u < (1 + margin) * view.width
            if across and -margin * view.height < v < (1 + margin) * view.height:
                best = min(best, z / max(K[0, 0], K[1, 1]))
        finest.append(best)
    seen = [value for value in finest if math.isfinite(value)]
    return [value if math.isfinite(value) else max(seen, default=0.0) for value in finest]


@pytest.mark.parametrize("margin", [0.0, 0.15])
def test_the_finest_pixel_is_the_smallest_over_the_views_that_see_a_point(
    generator: torch.Generator, margin: float
) -> None:
    views = orbit_views(5, radius=3.0)
    views[0] = View(views[0].K * torch.tensor([[2.0], [1.5], [1.0]]), views[0].c2w, 160, 120)
    points = torch.randn(300, 3, generator=generator, dtype=torch.float64) * 2.0
    expected = footprint_by_loop(points.numpy(), views, margin)
    torch.testing.assert_close(finest_footprint(points, views, margin), torch.tensor(expected, dtype=torch.float64))


def test_points_that_nothing_sees_get_the_coarsest_pixel_or_none() -> None:
    view = orbit_views(1, radius=3.0)[0]
    behind = view.position - 2 * view.forward
    ahead = torch.stack([view.position + view.forward, view.position + 2 * view.forward])
    footprint = finest_footprint(torch.cat([behind[None], ahead]), [view])
    focal = float(torch.maximum(view.K[0, 0], view.K[1, 1]))
    assert footprint.tolist() == pytest.approx([2 / focal, 1 / focal, 2 / focal])
    assert finest_footprint(behind[None], [view]).tolist() == [0.0]


@given(sizes, st.floats(1e-3, 10.0), st.floats(0.01, 2.0), st.floats(-8.0, 8.0))
def test_the_filter_adds_variance_and_keeps_the_integral(
    axes: list[tuple[float, float, float]], footprint: float, variance: float, logit: float
) -> None:
    """Convolution of two Gaussians: variances add, and opacity times volume stays what it was."""
    linear = torch.tensor(axes, dtype=torch.float64)
    logits = torch.full((len(axes), 1), logit, dtype=torch.float64)
    each = torch.full((len(axes),), footprint, dtype=torch.float64)
    scales, opacities = smooth_3d(linear.log(), logits, each, variance)
    torch.testing.assert_close(scales**2, linear**2 + variance * footprint**2)
    before = torch.sigmoid(logits[:, 0]) * linear.prod(-1)
    torch.testing.assert_close(opacities * scales.prod(-1), before)
    assert ((opacities > 0) & (opacities < 1)).all()


def test_the_filters_limits() -> None:
    logs = torch.tensor([[-3.0, -1.0, 0.5]], dtype=torch.float64)
    logits = torch.tensor([[0.7]], dtype=torch.float64)
    scales, opacities = smooth_3d(logs, logits, torch.zeros(1, dtype=torch.float64), 0.2)
    torch.testing.assert_close(scales, logs.exp())
    torch.testing.assert_close(opacities, torch.sigmoid(logits[:, 0]))
    scales, opacities = smooth_3d(logs, logits, torch.full((1,), 1e6, dtype=torch.float64), 0.2)
    torch.testing.assert_close(scales, torch.full((1, 3), 1e6 * 0.2**0.5, dtype=torch.float64))
    assert float(opacities) < 1e-12
