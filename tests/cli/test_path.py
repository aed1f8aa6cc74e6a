"""`closeup-gs path`: its options and what it says."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest

from closeup_ns.cli.path import WritePath, described, frame_count, render_command
from closeup_ns.errors import CloseupError
from closeup_ns.paths.options import PlannedPath
from tests.paths.rig import TARGET, view_from


@pytest.mark.parametrize(("seconds", "fps"), [(0, 30), (8, 0), (-1, -30), (math.nan, 30), (0.01, 30), (1e9, 30)])
def test_videos_without_frames_are_refused(seconds: float, fps: float) -> None:
    with pytest.raises(CloseupError, match="--seconds"):
        frame_count(seconds, fps)


def test_frames_are_seconds_times_fps() -> None:
    assert frame_count(8, 30) == 240
    assert frame_count(0.1, 29.97) == 3


def test_a_missing_config_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match=r"nowhere/config\.yml"):
        WritePath(load_config=tmp_path / "nowhere" / "config.yml").main()


@pytest.mark.parametrize(("frames", "fps"), [(1, 30), (0, 30), (-3, 30), (10, 0), (10, math.nan), (10**7, 30)])
def test_frames_asked_for_are_checked_too(frames: int, fps: float) -> None:
    with pytest.raises(CloseupError, match="--frames"):
        frame_count(8, fps, frames)
    assert frame_count(8, 30, 12) == 12


def test_bad_options_are_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match="zoom must be more than 1"):
        WritePath(load_config=tmp_path / "nowhere.yml", zoom=0.5).main()


def test_a_long_side_below_zero_is_no_size(tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match="--long-side -4 is no size"):
        WritePath(load_config=tmp_path / "nowhere.yml", long_side=-4).main()


def test_the_command_to_render_with_can_be_pasted() -> None:
    """Whatever the folders are called."""
    config, path = Path("my run/config.yml"), Path("a 'dive' $HOME.json")
    arguments = shlex.split(render_command(config, path))
    assert arguments[:2] == ["ns-render", "camera-path"]
    assert dict(zip(arguments[2::2], arguments[3::2])) == {
        "--load-config": str(config), "--camera-path-filename": str(path), "--output-path": "a 'dive' $HOME.mp4",
    }  # fmt: skip
    assert "'" not in render_command(Path("run/config.yml"), Path("dive.json"))


def test_a_path_in_a_few_words() -> None:
    view = view_from(0, 0, 0)
    assert described(PlannedPath("orbit", [view] * 3, TARGET, 3.0, sweep=60.0)) == "3 frames over 60 degrees at 3.0x"
    assert described(PlannedPath("dive", [view] * 3, TARGET, 9.0)) == "3 frames to 9.0x"
    assert described(PlannedPath("pull-back", [view] * 3, TARGET, 9.0)) == "3 frames from 9.0x"
