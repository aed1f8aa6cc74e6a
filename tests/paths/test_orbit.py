"""The orbit: closed forms, obstacles in ray-traced scenes, what photographs cover."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.errors import PlanningError
from closeup_ns.paths.geometry import smooth
from closeup_ns.paths.options import PathOptions
from closeup_ns.paths.ring import Ring, directions_covered
from closeup_ns.views.rotation import rotation
from closeup_ns.views.view import View
from tests.paths.rig import BALL, OPEN, QUICK, TARGET, aim_errors, distances, plan_orbit, view_from
from tests.scenes import analytic_renderer, facing_views

SPHERE = ((0.0, 0.0, 4.0), 0.03)


def outward(views: list[View]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.stack([view.position for view in views]) - TARGET, dim=1)


@settings(max_examples=15, deadline=None)
@given(
    x=st.floats(-1, 1),
    y=st.floats(-1, 1),
    zoom=st.floats(1.5, 20),
    degrees=st.floats(5, 360),
    sign=st.sampled_from([-1, 1]),
)
def test_in_the_open_an_orbit_keeps_its_distance_its_tilt_and_the_target(
    x: float, y: float, zoom: float, degrees: float, sign: int
) -> None:
    start = view_from(x, y, 0.0, aim=(0.3, 0.2, 4.0))
    known = facing_views(5)
    options = PathOptions(zoom=zoom, degrees=sign * degrees, frames=21, check_steps=8, check_size=24)
    orbit = plan_orbit(start, TARGET, BALL, options, known=known)
    near = float((start.position - TARGET).norm())
    torch.testing.assert_close(
        distances(orbit.views), torch.full((21,), near / zoom, dtype=torch.float64), atol=1e-9, rtol=1e-9
    )
    assert float(aim_errors(orbit.views).max()) < 1e-9 and all(torch.equal(view.K, start.K) for view in orbit.views)
    assert orbit.sweep == pytest.approx(degrees) and orbit.zoom == pytest.approx(zoom)
    # About the photographs' mean "up": height above the target and the camera's tilt do not change.
    axis = -torch.stack([view.c2w[:3, 1] for view in known]).mean(0)
    axis = axis / axis.norm()
    poses = torch.stack([view.c2w for view in orbit.views])
    for column in range(3):
        tilt = poses[:, :3, column] @ axis
        torch.testing.assert_close(tilt, tilt[:1].expand(21), atol=1e-9, rtol=0)
    # The sweep is centred on the start direction, which its middle frame has exactly, and it is eased.
    torch.testing.assert_close(outward(orbit.views)[10], outward([start])[0], atol=1e-9, rtol=0)
    angles = math.radians(sign * degrees) * (smooth(torch.linspace(0, 1, 21, dtype=torch.float64)) - 0.5)
    for angle, direction in zip(angles.tolist(), outward(orbit.views)):
        expected = rotation(angle * axis) @ outward([start])[0]
        torch.testing.assert_close(direction, expected, atol=1e-9, rtol=0)


def test_without_photographs_it_goes_about_the_start_views_own_up() -> None:
    start = view_from(0.5, -0.4, 0.0)
    orbit = plan_orbit(start, TARGET, BALL, QUICK)
    up = torch.stack([view.c2w[:3, 1] for view in orbit.views])
    torch.testing.assert_close(up, start.c2w[:3, 1].expand_as(up), atol=1e-9, rtol=0)
    assert not orbit.warnings


def test_seen_from_above_the_camera_goes_around_and_does_not_only_turn_the_picture() -> None:
    above = view_from(0.0, -4.0, 4.0)
    orbit = plan_orbit(above, TARGET, BALL, replace(QUICK, degrees=90.0), known=facing_views(5))
    first, last = outward(orbit.views)[0], outward(orbit.views)[-1]
    assert float(torch.rad2deg(torch.acos(first @ last))) == pytest.approx(90.0)


POST = ((0.30, -0.5, 2.75), (0.38, 0.5, 2.83))
"""A post on the orbit of radius 4/3 about the target, some 16 degrees off the start direction."""


def test_around_a_post_the_radius_grows_locally_and_smoothly() -> None:
    render = analytic_renderer(None, boxes=(POST,), spheres=(SPHERE,))
    options = PathOptions(frames=181, degrees=120.0, check_size=64)
    orbit = plan_orbit(view_from(0, 0, 0), TARGET, render, options)
    away = distances(orbit.views)
    assert orbit.sweep == pytest.approx(120.0) and float(aim_errors(orbit.views).max()) < 1e-9
    assert any("as wide" in warning for warning in orbit.warnings)
    # Wider around the post, as asked for at both ends.
    assert float(away.max()) > 1.1 * 4 / 3
    torch.testing.assert_close(away[[0, -1]], torch.full((2,), 4 / 3, dtype=torch.float64), atol=1e-9, rtol=0)
    low, high = torch.tensor(POST, dtype=torch.float64)
    positions = torch.stack([view.position for view in orbit.views])
    gaps = torch.maximum(low - positions, positions - high).clamp_min(0).norm(dim=1)
    assert float((gaps / away).min()) > 0.05
    assert float(away.log().diff().abs().max()) < 0.05


def test_a_wall_cuts_the_sweep_before_it() -> None:
    """The target lies on the wall: a full circle about it would go through."""
    options = PathOptions(frames=61, degrees=360.0, check_steps=36, check_size=48)
    orbit = plan_orbit(view_from(0, 0, 0), TARGET, OPEN, options)
    assert 100 < orbit.sweep < 180 and any("cuts the orbit" in warning for warning in orbit.warnings)
    assert all(float(view.position[2]) < 4.0 for view in orbit.views)
    assert float(aim_errors(orbit.views).max()) < 1e-9


def test_a_wall_before_the_radius_holds_the_orbit_back() -> None:
    orbit = plan_orbit(view_from(0, 0, 0), TARGET, analytic_renderer(2.0, boxes=()), replace(QUICK, degrees=20.0))
    assert all(float(view.position[2]) < 2.0 for view in orbit.views)
    assert any("instead of 1.33" in warning for warning in orbit.warnings)
    assert any("in front of the target" in warning for warning in orbit.warnings)


def test_in_a_tube_there_is_no_orbit() -> None:
    sides = [((-0.2, -9.0, -1.0), (-0.1, 9.0, 3.9)), ((0.1, -9.0, -1.0), (0.2, 9.0, 3.9))]
    with pytest.raises(PlanningError, match="no orbit|right between"):
        plan_orbit(view_from(0, 0, 0), TARGET, analytic_renderer(4.0, boxes=sides), replace(QUICK, clearance=0.05))


def test_leaving_what_photographs_cover_is_said_or_cut() -> None:
    known = [
        view_from(4 * float(torch.tensor(a).sin()), 0.0, 4 - 4 * float(torch.tensor(a).cos())) for a in (-0.2, 0.0, 0.2)
    ]
    start, options = known[1], replace(QUICK, degrees=120.0, check_steps=48)
    said = plan_orbit(start, TARGET, BALL, options, known=known)
    assert said.sweep == pytest.approx(120.0) and any("no photograph does" in warning for warning in said.warnings)
    cut = plan_orbit(start, TARGET, BALL, replace(options, within_coverage=True), known=known)
    # 0.2 rad to the outermost photographs and 15 degrees beyond, on either side, in check steps of 2.5 degrees.
    expected = 2 * (float(torch.rad2deg(torch.tensor(0.2))) + 15.0)
    assert expected - 5.0 < cut.sweep <= expected and any("photographs cover" in warning for warning in cut.warnings)
    assert directions_covered(outward(cut.views), known, TARGET, 15.001).all()
    with pytest.raises(PlanningError, match="no photograph looks"):
        plan_orbit(view_from(4, 0, 4), TARGET, BALL, replace(options, within_coverage=True), known=known)
    inside = plan_orbit(start, TARGET, BALL, replace(options, degrees=20.0), known=known)
    assert not inside.warnings


def test_photographs_without_the_target_cover_nothing() -> None:
    away = [view_from(x, 0, 0, aim=(0.0, 0.0, -4.0)) for x in (0.0, 0.5)]
    assert not directions_covered(outward([view_from(0, 0, 0)]), away, TARGET, 180.0).any()


@settings(max_examples=60, deadline=None)
@given(
    need=st.lists(st.floats(0, 0.7), min_size=9, max_size=25), degrees=st.floats(-300, 300).filter(lambda d: abs(d) > 1)
)
def test_the_growth_is_nowhere_less_than_needed_and_at_most_the_largest_need(need: list[float], degrees: float) -> None:
    nodes = torch.linspace(-0.5, 0.5, len(need)).double() * degrees
    aimed = view_from(0, 0, 0)
    ring = Ring(aimed, TARGET, -aimed.c2w[:3, 1], 1.0, nodes, torch.tensor(need).double())
    grown = torch.tensor([ring.growth_at(angle) for angle in nodes.tolist()]).double().log()
    assert (grown >= torch.tensor(need).double() - 1e-6).all()
    assert float(grown.max()) <= max(need) + 1e-6
    between = torch.tensor(
        [ring.growth_at(angle) for angle in torch.linspace(float(nodes[0]), float(nodes[-1]), 400).tolist()]
    )
    assert float(between.log().diff().abs().max()) <= 0.7 * len(need) / 40


@pytest.mark.parametrize(
    ("start", "target", "message"),
    [
        (view_from(0, 0, 0, aim=(0.0, 0.0, -4.0)), TARGET, "behind the start view"),
        (view_from(0, 0, 0), torch.tensor([0.0, 0.0, float("nan")]), "finite"),
        (view_from(0, 0, 0), torch.tensor([1.0, 0.0, 4.0]), "nothing solid"),
    ],
)
def test_targets_that_make_no_path(start: View, target: torch.Tensor, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        plan_orbit(start, target, BALL, QUICK)


def test_a_target_in_the_air_is_said() -> None:
    orbit = plan_orbit(view_from(0, 0, 0), torch.tensor([0.0, 0.0, 2.0]), OPEN, QUICK)
    assert any("in the air" in warning for warning in orbit.warnings)
