"""The dive and the pull-back: closed forms, and obstacles in ray-traced scenes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.paths.geometry import smooth, soft
from closeup_ns.paths.options import PathOptions
from tests.paths.rig import BLOCK, OPEN, QUICK, TARGET, aim_errors, distances, plan_dive, plan_pull_back, view_from
from tests.scenes import analytic_renderer, facing_views


@pytest.mark.parametrize("ease", [smooth, soft])
def test_ease_is_monotone_and_symmetric(ease: Callable[[Tensor], Tensor]) -> None:
    time = torch.linspace(0, 1, 101, dtype=torch.float64)
    progress = ease(time)
    assert progress[0] == 0 and progress[-1] == pytest.approx(1.0)
    assert (progress.diff() > 0).all()
    torch.testing.assert_close(progress, 1.0 - progress.flip(0))
    assert progress[1] < 0.1 * time[1], "the camera should start from rest"


def test_path_starts_at_the_start_view_and_ends_on_the_target_at_the_zoom() -> None:
    start = view_from(0.5, -0.4, 0.0, aim=(0.7, 0.3, 4.0))
    dive = plan_dive(start, TARGET, OPEN, QUICK)
    assert dive.bend == 0.0 and not dive.warnings
    torch.testing.assert_close(dive.views[0].c2w, start.c2w)
    away = distances(dive.views)
    assert float(away[0] / away[-1]) == pytest.approx(27.0)
    assert dive.zoom == pytest.approx(27.0)
    assert (away.diff() < 0).all()
    last = dive.views[-1]
    gaze = (TARGET - last.position) / away[-1]
    torch.testing.assert_close(last.forward, gaze, atol=1e-9, rtol=0)


def test_poses_are_rotations_and_turn_without_jumps_or_roll() -> None:
    start = view_from(0.5, -0.4, 0.0, aim=(1.0, 0.5, 4.0))
    dive = plan_dive(start, TARGET, OPEN, QUICK)
    rotations = torch.stack([view.c2w[:3, :3] for view in dive.views])
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity, atol=1e-9, rtol=0)
    turns = (rotations[1:] * rotations[:-1]).sum((1, 2)).sub(1).div(2).clamp(-1, 1).acos()
    assert float(torch.rad2deg(turns).max()) < 2.0
    # Smallest rotation: its axis is perpendicular to both gazes, so there is no roll about the gaze.
    relative = rotations[-1] @ rotations[0].mT
    axis = torch.stack(
        [relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]]
    )
    assert abs(float(axis @ rotations[0][:, 2])) < 1e-9 and abs(float(axis @ rotations[-1][:, 2])) < 1e-9


@pytest.mark.parametrize("zoom", [27.0, 16.0])
def test_what_zoom_1_is_can_be_said(zoom: float) -> None:
    options = replace(QUICK, zoom=zoom)
    dive = plan_dive(view_from(0, 0, -4.0), TARGET, OPEN, options, reference_distance=4.0)
    assert float(distances(dive.views)[-1]) == pytest.approx(4.0 / zoom) and dive.zoom == pytest.approx(zoom)


def test_the_approach_bends_around_a_box_and_never_enters_it() -> None:
    dive = plan_dive(view_from(0, 0, 0), TARGET, analytic_renderer(4.0, boxes=(BLOCK,)), QUICK)
    assert dive.bend > 0 and dive.zoom == pytest.approx(27.0)
    assert any("bends" in warning for warning in dive.warnings)
    low, high = torch.tensor(BLOCK, dtype=torch.float64)
    ends = torch.stack([view.position for view in dive.views])
    along = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None, None]
    points = (ends[:-1] + along * (ends[1:] - ends[:-1])).reshape(-1, 3)
    assert not ((points > low) & (points < high)).all(-1).any()


def test_a_wall_in_front_stops_the_path_before_it() -> None:
    """A wall at z=2 hides the target at z=4 from everywhere: the camera must stop on this side of it."""
    dive = plan_dive(view_from(0, 0, 0), TARGET, analytic_renderer(wall=2.0, boxes=()), QUICK)
    assert any("stops at" in warning for warning in dive.warnings)
    assert max(float(view.position[2]) for view in dive.views) < 2.0
    assert 1.0 < dive.zoom < 2.1
    reached = float(distances(dive.views)[-1])
    assert dive.zoom == pytest.approx(4.0 / reached)


@pytest.mark.parametrize(("z", "wall", "message"), [(0, 0.05, "another start view"), (3.9, 4.0, "further away")])
def test_a_start_with_its_nose_at_a_wall_or_closer_than_the_end_is_refused(z: float, wall: float, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        plan_dive(view_from(0, 0, z), TARGET, analytic_renderer(wall=wall, boxes=()), QUICK, reference_distance=4.0)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1, 1), y=st.floats(-1, 1), zoom=st.floats(2, 80), seed=st.integers(0, 100))
def test_any_start_in_the_open_reaches_its_zoom_on_a_straight_line(x: float, y: float, zoom: float, seed: int) -> None:
    start = view_from(x, y, 0.0, aim=(0.01 * (seed % 50), 0.0, 4.0))
    dive = plan_dive(start, TARGET, OPEN, PathOptions(zoom=zoom, frames=20, check_steps=5, check_size=24))
    positions = torch.stack([view.position for view in dive.views])
    straight = (TARGET - positions[0]) / (TARGET - positions[0]).norm()
    off = torch.linalg.cross(positions - positions[0], straight.expand_as(positions)).norm(dim=-1)
    assert float(off.max()) < 1e-9
    assert dive.zoom == pytest.approx(zoom)


def test_float32_views_of_a_real_run_make_the_same_path() -> None:
    views = facing_views(6, dtype=torch.float32)
    dive = plan_dive(views[0], TARGET.float(), OPEN, QUICK)
    assert dive.zoom == pytest.approx(27.0, rel=1e-5)


def test_the_pull_back_is_the_dive_reversed() -> None:
    start = view_from(0.5, -0.4, 0.0, aim=(0.7, 0.3, 4.0))
    dive, back = plan_dive(start, TARGET, OPEN, QUICK), plan_pull_back(start, TARGET, OPEN, QUICK)
    assert back.zoom == dive.zoom and not back.warnings
    for out, into in zip(back.views, reversed(dive.views)):
        torch.testing.assert_close(out.c2w, into.c2w, atol=1e-9, rtol=0)
    assert torch.equal(back.views[-1].c2w, start.c2w)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1, 1), zoom=st.floats(2, 80), beyond=st.floats(1, 4))
def test_a_pull_back_recedes_at_eased_speed_to_beyond_its_start(x: float, zoom: float, beyond: float) -> None:
    start = view_from(x, 0.3, 0.0)
    options = PathOptions(zoom=zoom, beyond=beyond, frames=25, check_steps=5, check_size=24)
    back = plan_pull_back(start, TARGET, OPEN, options)
    away, near = distances(back.views), float((start.position - TARGET).norm())
    assert (away.diff() > 0).all()
    assert float(away[0]) == pytest.approx(near / zoom) and float(away[-1]) == pytest.approx(near * beyond)
    share = torch.log(away / away[0]) / torch.log(away[-1] / away[0])
    torch.testing.assert_close(share, smooth(torch.linspace(0, 1, 25).double()), atol=1e-6, rtol=0)
    assert float(aim_errors(back.views).max()) < 1e-9


def test_a_pull_back_beyond_its_start_stops_before_the_wall_behind_it() -> None:
    wall = ((-9.0, -9.0, -2.1), (9.0, 9.0, -2.0))
    options = replace(QUICK, beyond=4.0)
    back = plan_pull_back(view_from(0, 0, 0), TARGET, analytic_renderer(4.0, boxes=(wall,)), options)
    assert min(float(view.position[2]) for view in back.views) > -2.0
    assert any("behind the start view" in warning for warning in back.warnings)
    assert float(distances(back.views)[-1]) > 4.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(zoom=1.0), "zoom must be"), (dict(zoom=math.nan), "zoom must be"),
        (dict(degrees=0.0), "no orbit"), (dict(degrees=361.0), "no orbit"), (dict(beyond=0.9), "or beyond"),
        (dict(beyond=math.inf), "or beyond"),
        *((dict(seconds=seconds, fps=fps), "--seconds .* makes no video")
          for seconds, fps in [(0, 30), (8, 0), (-1, -30), (math.nan, 30), (0.01, 30), (1e9, 30)]),
        *((dict(frames=frames, fps=fps), "--frames .* makes no video")
          for frames, fps in [(1, 30), (0, 30), (-3, 30), (10, 0), (10, math.nan), (10**7, 30)]),
    ],
)  # fmt: skip
def test_impossible_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        PathOptions(**options)  # pyright: ignore[reportArgumentType]


def test_frames_are_seconds_times_fps_or_as_many_as_asked_for() -> None:
    counts = [PathOptions(), PathOptions(seconds=0.1, fps=29.97), PathOptions(frames=12)]
    assert [options.frame_count for options in counts] == [240, 3, 12]
