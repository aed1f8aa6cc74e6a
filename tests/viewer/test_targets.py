"""A click against the ray-traced scene's own surface, and clicks that hit nothing."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.errors import PlanningError
from closeup_ns.viewer.targets import describe, target_from_click
from closeup_ns.views.view import aim_at
from closeup_ns.views.warp import project
from tests.scenes import analytic_renderer, facing_views

VIEWS = facing_views(6)
SPHERE = ((0.0, 0.0, 3.0), 0.5)
SKY = analytic_renderer(wall=None, boxes=(), spheres=(SPHERE,))


def test_a_click_lands_on_the_surface_that_is_seen_there() -> None:
    render, view = analytic_renderer(), VIEWS[0]
    target = target_from_click(view, (0.5, 0.5), VIEWS, render)
    uv, z = project(view, target.point[None])
    assert uv[0].tolist() == pytest.approx([80.5, 60.5])
    assert float(target.point[2]) == pytest.approx(4.0) or float(target.point[2]) == pytest.approx(3.6)
    assert target.reliability > 0.5
    words = describe(target)
    assert f"{target.distance:.3g}" in words and f"{target.reliability:.0%}" in words


def test_the_corners_are_inside() -> None:
    for screen in ((0.0, 0.0), (1.0, 1.0)):
        target_from_click(VIEWS[0], screen, VIEWS, analytic_renderer())


@pytest.mark.parametrize("screen, message", [((0.02, 0.02), "empty sky.*0% opaque"), ((1.2, 0.5), "outside the image")])
def test_a_click_on_nothing_says_so(screen: tuple[float, float], message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        target_from_click(VIEWS[0], screen, VIEWS, SKY)


def test_a_point_behind_every_camera_says_so() -> None:
    render = analytic_renderer(wall=None, boxes=(), spheres=(SPHERE, ((0.0, 0.0, -4.0), 0.5)))
    back = aim_at(VIEWS[0], torch.tensor([0.0, 0.0, -4.0], dtype=torch.float64))
    with pytest.raises(PlanningError, match="behind or beside every camera"):
        target_from_click(back, (0.5, 0.5), VIEWS, render)
