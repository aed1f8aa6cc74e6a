"""The reference photograph on a scene whose geometry is known."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.errors import CloseupError
from closeup_ns.metrics.reference import choose_reference, plane_depth
from closeup_ns.views.view import View, look_at, move_closer
from tests.scenes import analytic_renderer, intrinsics

UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
TARGET = torch.tensor([0.6, 0.2, 4.0], dtype=torch.float64)


def camera(x: float, z: float = 0.0, look: tuple[float, float] | None = None) -> View:
    position = torch.tensor([x, 0.0, z], dtype=torch.float64)
    at = torch.tensor([*(look or (x, 0.0)), 4.0], dtype=torch.float64)
    return look_at(position, at, UP, intrinsics(160, 120), 160, 120)


def test_the_photograph_that_sees_most_is_taken():
    photographs = [camera(-2.0, look=(-3.0, 0.0)), camera(0.5), camera(2.5, look=(3.5, 0.0))]
    close = move_closer(camera(0.6), TARGET, 9.0).resized(96)
    assert choose_reference(close, plane_depth(close, TARGET), photographs) == 1


def test_among_equals_the_finest_is_taken():
    photographs = [camera(0.5), camera(0.5, z=2.0), camera(0.5, z=-2.0)]
    close = move_closer(camera(0.6), TARGET, 27.0).resized(96)
    assert choose_reference(close, plane_depth(close, TARGET), photographs) == 1


def test_what_is_hidden_does_not_count():
    """A box stands between the second photograph and the target; without depth it would be the finer one."""
    render = analytic_renderer(boxes=[((-0.3, -0.8, 2.4), (1.3, 0.8, 2.5))])
    photographs = [camera(3.5, look=(0.6, 0.2)), camera(0.5, z=1.0)]
    close = move_closer(photographs[0], TARGET, 9.0).resized(96)
    depth = render(close).depth
    depths = [render(photograph.resized(96)).depth for photograph in photographs]
    assert choose_reference(close, depth, photographs, depths) == 0
    assert choose_reference(close, depth, photographs) == 1


def test_a_close_up_of_nothing_known_has_no_reference():
    away = look_at(torch.zeros(3, dtype=torch.float64), -TARGET, UP, intrinsics(96, 72), 96, 72)
    assert choose_reference(away, torch.ones(72, 96, dtype=torch.float64), [camera(0.5)]) is None
    with pytest.raises(CloseupError, match="behind"):
        plane_depth(away, TARGET)
