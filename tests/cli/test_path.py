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


def test_frames_are_seconds_times_fps_or_as_many_as_asked_for() -> None:
    assert (frame_count(8, 30), frame_count(0.1, 29.97), frame_count(8, 30, 12)) == (240, 3, 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"nowhere/config\.yml"),
        ({"zoom": 0.5}, "zoom must be more than 1"),
        ({"long_side": -4}, "--long-side -4 is no size"),
        *(({"seconds": seconds, "fps": fps}, "--seconds")
          for seconds, fps in [(0, 30), (8, 0), (-1, -30), (math.nan, 30), (0.01, 30), (1e9, 30)]),
        *(({"frames": frames, "fps": fps}, "--frames")
          for frames, fps in [(1, 30), (0, 30), (-3, 30), (10, 0), (10, math.nan), (10**7, 30)]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_loaded(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match=message):
        WritePath(load_config=tmp_path / "nowhere" / "config.yml", **options).main()


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
