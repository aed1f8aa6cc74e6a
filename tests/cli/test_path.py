"""The camera dive: its geometry against closed forms, obstacles against ray-traced scenes, its file against readers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.cli.path import CameraDive, camera_path, frame_count
from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.planning.dive import DiveOptions, choose_start, eased, plan_dive, stage_frames
from closeup_ns.views.view import View, look_at
from tests.scenes import analytic_renderer, facing_views, intrinsics

TARGET = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
OPEN = analytic_renderer(wall=4.0, boxes=())
QUICK = DiveOptions(frames=61, check_steps=16, check_size=48)


def view_from(x: float, y: float, z: float, aim: tuple[float, float, float] = (0.0, 0.0, 4.0)) -> View:
    up = torch.tensor([0.1, -1.0, 0.0], dtype=torch.float64)
    position, target = torch.tensor([x, y, z]).double(), torch.tensor(aim).double()
    return look_at(position, target, up, intrinsics(160, 120), 160, 120)


def distances(views: list[View]) -> torch.Tensor:
    return torch.stack([(view.position - TARGET).norm() for view in views])


@pytest.mark.parametrize("ease", ["smooth", "soft", "linear"])
def test_ease_is_monotone_and_symmetric(ease: str) -> None:
    time = torch.linspace(0, 1, 101, dtype=torch.float64)
    progress = eased(time, ease)  # pyright: ignore[reportArgumentType]
    assert progress[0] == 0 and progress[-1] == pytest.approx(1.0)
    assert (progress.diff() > 0).all()
    torch.testing.assert_close(progress, 1.0 - progress.flip(0))
    if ease != "linear":
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
    sight = (TARGET - last.position) / away[-1]
    torch.testing.assert_close(last.forward, sight, atol=1e-9, rtol=0)


def test_log_distance_follows_the_ease_exactly() -> None:
    start = view_from(0.0, 0.0, 0.0)
    dive = plan_dive(start, TARGET, OPEN, QUICK)
    share = torch.log(distances(dive.views) / 4.0) / math.log(1 / 27)
    torch.testing.assert_close(share, eased(torch.linspace(0, 1, 61, dtype=torch.float64), "smooth"), atol=1e-6, rtol=0)


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


def test_reference_distance_sets_what_zoom_1_is() -> None:
    dive = plan_dive(view_from(0, 0, -4.0), TARGET, OPEN, QUICK, reference_distance=4.0)
    assert float(distances(dive.views)[-1]) == pytest.approx(4.0 / 27)


def test_narrow_lens_shares_the_magnification() -> None:
    options = DiveOptions(frames=31, narrow_lens=True, check_steps=8, check_size=32)
    dive = plan_dive(view_from(0, 0, 0), TARGET, OPEN, options)
    first, last = dive.views[0], dive.views[-1]
    approach = float(distances(dive.views)[0] / distances(dive.views)[-1])
    lens = float(last.K[0, 0] / first.K[0, 0])
    assert approach == pytest.approx(math.sqrt(27)) and lens == pytest.approx(math.sqrt(27))
    assert dive.zoom == pytest.approx(27.0)
    assert float(last.K[0, 2]) == float(first.K[0, 2])


BLOCK = ((-0.25, -0.25, 2.4), (0.25, 0.25, 2.6))


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


def test_a_start_with_its_nose_at_a_wall_is_refused() -> None:
    with pytest.raises(PlanningError, match="--start-view"):
        plan_dive(view_from(0, 0, 0), TARGET, analytic_renderer(wall=0.05, boxes=()), QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [(DiveOptions(zoom=1.0), "--zoom"), (DiveOptions(zoom=math.nan), "--zoom"), (DiveOptions(frames=1), "--seconds")],
)
def test_impossible_options_are_named(options: DiveOptions, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        plan_dive(view_from(0, 0, 0), TARGET, OPEN, options)


def test_a_start_that_is_closer_than_the_end_is_refused() -> None:
    with pytest.raises(PlanningError, match="further away"):
        plan_dive(view_from(0, 0, 3.9), TARGET, OPEN, QUICK, reference_distance=4.0)


def test_a_start_that_looks_away_is_refused() -> None:
    with pytest.raises(PlanningError, match="looks away"):
        plan_dive(view_from(0, 0, 0, aim=(0.0, 0.0, -4.0)), TARGET, OPEN, QUICK)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(-1, 1), y=st.floats(-1, 1), zoom=st.floats(2, 80), seed=st.integers(0, 100))
def test_any_start_in_the_open_reaches_its_zoom_on_a_straight_line(x: float, y: float, zoom: float, seed: int) -> None:
    start = view_from(x, y, 0.0, aim=(0.01 * (seed % 50), 0.0, 4.0))
    dive = plan_dive(start, TARGET, OPEN, DiveOptions(zoom=zoom, frames=20, check_steps=5, check_size=24))
    positions = torch.stack([view.position for view in dive.views])
    straight = (TARGET - positions[0]) / (TARGET - positions[0]).norm()
    off = torch.linalg.cross(positions - positions[0], straight.expand_as(positions)).norm(dim=-1)
    assert float(off.max()) < 1e-9
    assert dive.zoom == pytest.approx(zoom)


def test_stages_are_the_papers_rounds() -> None:
    dive = plan_dive(view_from(0, 0, 0), TARGET, OPEN, DiveOptions(frames=400, check_steps=8, check_size=32))
    stages = stage_frames(dive.views, TARGET)
    away = distances(dive.views)
    ratios = [float(away[0] / away[frame]) for frame in stages]
    assert len(stages) == 4
    assert ratios == pytest.approx([1, 3, 9, 27], rel=0.02)


def test_the_file_reads_back_in_nerfstudio_as_the_same_cameras(tmp_path: Path) -> None:
    from nerfstudio.cameras.camera_paths import get_path_from_json

    start = view_from(0.5, -0.4, 0.0)
    dive = plan_dive(start, TARGET, OPEN, QUICK)
    content = json.loads(json.dumps(camera_path(dive, TARGET, fps=30.0)))
    cameras = get_path_from_json(content)
    assert len(cameras) == 61
    assert int(cameras.width[0]) == 160 and int(cameras.height[0]) == 120
    assert float(cameras.fx[7]) == pytest.approx(float(start.K[0, 0]), rel=1e-5)
    opengl = cameras.camera_to_worlds[-1].double()
    torch.testing.assert_close(opengl[:, 3], dive.views[-1].position, atol=1e-6, rtol=0)
    torch.testing.assert_close(-opengl[:, 2], dive.views[-1].forward, atol=1e-6, rtol=0)
    torch.testing.assert_close(opengl[:, 1], -dive.views[-1].c2w[:3, 1], atol=1e-6, rtol=0)
    assert content["seconds"] == pytest.approx(61 / 30)


def test_keyframes_carry_what_the_viewer_reads() -> None:
    content = camera_path(plan_dive(view_from(0, 0, 0), TARGET, OPEN, QUICK), TARGET, fps=30.0)
    assert {"default_fov", "default_transition_sec", "is_cycle", "smoothness_value", "camera_type"} <= content.keys()
    assert [len(frame["matrix"]) for frame in content["keyframes"]] == [16] * 4
    seconds = [frame["override_transition_sec"] for frame in content["keyframes"][1:]]
    assert sum(seconds) == pytest.approx(60 / 30)
    assert content["keyframes"][0]["matrix"] == content["camera_path"][0]["camera_to_world"]


@pytest.mark.parametrize(("long_side", "size"), [(0, (160, 120)), (99, (98, 74)), (321, (320, 240))])
def test_sizes_are_even(long_side: int, size: tuple[int, int]) -> None:
    dive = plan_dive(view_from(0, 0, 0), TARGET, OPEN, DiveOptions(frames=5, check_steps=3, check_size=24))
    content = camera_path(dive, TARGET, 30.0, long_side)
    assert (content["render_width"], content["render_height"]) == size


def test_start_is_the_best_aimed_view_that_sees_the_target() -> None:
    blocked = view_from(0.0, 0.0, 0.0)
    free = view_from(1.2, 0.0, 0.0, aim=(0.1, 0.0, 4.0))
    away = view_from(0.0, 0.0, 0.0, aim=(0.0, 0.0, -4.0))
    render = analytic_renderer(4.0, boxes=(BLOCK,))
    views, names = [blocked, free, away], ["a.png", "b.png", "c.png"]
    assert choose_start(views, names, None, TARGET, render) == (free, [])
    assert choose_start(views, names, None, TARGET, OPEN) == (blocked, [])
    assert choose_start(views, names, "c.png", TARGET, render) == (away, [])
    chosen, notes = choose_start([blocked], ["a.png"], None, TARGET, render)
    assert chosen is blocked and "in front of the target" in notes[0]
    with pytest.raises(CloseupError, match=r"a\.png"):
        choose_start(views, names, "missing.png", TARGET, render)
    with pytest.raises(PlanningError, match="--target"):
        choose_start([away], ["c.png"], None, TARGET, render)


def test_float32_views_of_a_real_run_make_the_same_path() -> None:
    views = facing_views(6, dtype=torch.float32)
    dive = plan_dive(views[0], TARGET.float(), OPEN, QUICK)
    assert dive.zoom == pytest.approx(27.0, rel=1e-5)


@pytest.mark.parametrize(("seconds", "fps"), [(0, 30), (8, 0), (-1, -30), (math.nan, 30), (0.01, 30), (1e9, 30)])
def test_videos_without_frames_are_refused(seconds: float, fps: float) -> None:
    with pytest.raises(CloseupError, match="--seconds"):
        frame_count(seconds, fps)


def test_frames_are_seconds_times_fps() -> None:
    assert frame_count(8, 30) == 240
    assert frame_count(0.1, 29.97) == 3


def test_a_missing_config_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match=r"nowhere/config\.yml"):
        CameraDive(load_config=tmp_path / "nowhere" / "config.yml").main()
