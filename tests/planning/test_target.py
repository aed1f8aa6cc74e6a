"""Targets: given, picked, found; and each refusal."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.errors import PlanningError
from closeup_ns.planning.target import target_automatic, target_from_pixel, target_from_xyz
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from closeup_ns.views.warp import project
from tests.scenes import BOX, analytic_renderer, facing_views, intrinsics, orbit_views

RENDER = analytic_renderer()
ON_BOX = (0.25, 0.0, 3.6)
KNOWN = facing_views(12, ON_BOX)


def nothing(view: View) -> Rendered:
    rendered = RENDER(view)
    return Rendered(rendered.color, rendered.depth, torch.zeros_like(rendered.alpha))


def test_distance_is_the_median_over_the_views_that_see_it() -> None:
    away = View(
        KNOWN[0].K, KNOWN[0].c2w @ torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)), 160, 120
    )
    far = away.c2w.clone()
    far[:3, 3] -= 100.0
    target = target_from_xyz(ON_BOX, [*KNOWN, View(away.K, far, 160, 120), away], RENDER)
    distances = torch.stack([(v.position - torch.tensor(ON_BOX)).norm() for v in KNOWN])
    assert target.distance == pytest.approx(float(distances.quantile(0.5)))
    assert target.reliability == 1.0
    assert target.warnings == []


def test_a_picked_pixel_is_lifted_onto_the_surface_behind_it() -> None:
    view = KNOWN[3]
    for row, column in ((60, 80), (10, 10), (119, 159)):
        target = target_from_pixel(view, column, row, RENDER, KNOWN)
        uv, z = project(view, target.point)
        torch.testing.assert_close(uv, torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64))
        assert float(z) == pytest.approx(float(RENDER(view).depth[row, column]), rel=0.01)


def test_on_an_edge_the_target_is_where_other_views_show_a_surface() -> None:
    """A splat's edge is translucent: its rendered depth lies between front and back, where nothing is."""
    near_box = ((0.0, -0.2, 1.5), (0.3, 0.2, 1.6))
    exact = analytic_renderer(boxes=(near_box,))
    view = View(intrinsics(160, 120), torch.eye(4, dtype=torch.float64), 160, 120)
    column = int((exact(view).depth[60] < 2.0).nonzero()[0])

    def blended(camera: View) -> Rendered:
        rendered = exact(camera)
        depth = rendered.depth.clone()
        scale = camera.width // 160
        if scale and camera.c2w is view.c2w:
            depth[58:63, column : column + 3] = 2.4
        return Rendered(rendered.color, depth, rendered.alpha)

    others = facing_views(11, (0.02, 0.0, 1.5))
    target = target_from_pixel(view, column + 1, 60, blended, [view, *others])
    assert any("edge" in warning for warning in target.warnings)
    assert float(target.point[2]) == pytest.approx(1.5, rel=0.03)
    assert target.reliability > 0.5
    assert target_from_pixel(view, column + 10, 60, blended, [view, *others]).warnings == []


def test_the_automatic_target_is_on_the_object_that_all_look_at() -> None:
    target = target_automatic(KNOWN, RENDER)
    assert abs(float(target.point[0]) - 0.25) < 0.3
    assert abs(float(target.point[1])) < 0.3
    assert float(target.point[2]) == pytest.approx(BOX[0][2], abs=0.11) or float(target.point[2]) == pytest.approx(
        4.0, abs=0.05
    )
    assert target.reliability > 0.9


def test_the_automatic_target_of_an_orbit_is_on_the_object() -> None:
    render = analytic_renderer(None, (), [((2.0, 0.0, 1.0), 0.8)])
    target = target_automatic(orbit_views(16, (2.0, 0.0, 1.0)), render)
    centre = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    assert float((target.point - centre).norm()) == pytest.approx(0.8, abs=0.08)


def test_parallel_cameras_have_no_meeting_point_and_still_a_target() -> None:
    views = [View(v.K, torch.eye(4, dtype=torch.float64), 160, 120) for v in KNOWN[:6]]
    for index, view in enumerate(views):
        view.c2w[0, 3] = 0.1 * index
    target = target_automatic(views, analytic_renderer(boxes=()))
    assert float(target.point[2]) == pytest.approx(4.0, abs=0.01)
    assert abs(float(target.point[0]) - 0.25) < 0.5
    assert target.source == "the surface most views are centred on"


def test_empty_space_is_a_warning_with_low_reliability() -> None:
    target = target_from_xyz((0.0, 0.0, 2.5), KNOWN, RENDER)
    assert target.reliability < 0.1
    assert "empty space" in target.warnings[0]


def test_a_point_behind_every_surface_is_refused() -> None:
    with pytest.raises(PlanningError, match="hidden behind other surfaces"):
        target_from_xyz((0.25, 0.0, 9.0), KNOWN, RENDER)


def test_where_nothing_is_rendered_there_is_no_target() -> None:
    with pytest.raises(PlanningError, match="nothing solid"):
        target_from_pixel(KNOWN[0], 80, 60, nothing, KNOWN)
    with pytest.raises(PlanningError, match="nothing solid"):
        target_automatic(KNOWN, nothing)
