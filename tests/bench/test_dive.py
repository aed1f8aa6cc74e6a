"""The dive video: frames counted by reading it back, its path shared by all methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from closeup_ns.bench import dive as dive_module
from closeup_ns.bench.case import Case, PreparedCase
from closeup_ns.bench.dive import (
    VideoOptions,
    config_of,
    film,
    plan,
    side_by_side,
    write_dive_video,
    write_video,
    zooms,
)
from closeup_ns.bench.report import write_report
from closeup_ns.bench.results import Result, load_results
from closeup_ns.errors import CloseupError
from closeup_ns.evaluation.drawing import panel_corner
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.view import View
from tests.bench.made_up import made_up_cell
from tests.scenes import analytic_renderer, facing_views

TARGET = (0.0, 0.0, 4.0)
OPTIONS = VideoOptions(frames=7, long_side=80, fps=5)
NEAR = {"x": (3.0, {"psnr": 20.0})}
WALL = analytic_renderer(wall=4.0, boxes=())


@dataclass
class FlatRun:
    """A wall of one colour."""

    color: tuple[float, float, float]

    def render(self, view: View) -> Rendered:
        rendered = WALL(view)
        return Rendered(torch.tensor(self.color).expand(view.height, view.width, 3), rendered.depth, rendered.alpha)

    def photographs(self) -> list[tuple[View, Path]]:
        return [(view, Path(f"{i}.png")) for i, view in enumerate(facing_views(3))]


RUNS = {"closeup-gs": FlatRun((1.0, 0.0, 0.0)), "a": FlatRun((0.0, 0.0, 1.0))}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Result], PreparedCase]:
    def opened(result: Result) -> FlatRun:
        if result.cell.method not in RUNS:
            raise CloseupError("its checkpoint is gone")
        return RUNS[result.cell.method]

    monkeypatch.setattr(dive_module, "_open", opened)
    cells = [made_up_cell(tmp_path, method, NEAR) for method in ("a", "gone", "closeup-gs")]
    folder = tmp_path / "cases" / "demo" / "flower"
    case = Case("demo", "flower", target_point=TARGET, scales=(3.0, 9.0))
    case.write(folder)
    return load_results(cells), PreparedCase(case, folder)


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader], about["fps"]


def test_the_video_has_all_frames_and_all_methods(scene: tuple[list[Result], PreparedCase], tmp_path: Path) -> None:
    warnings = write_dive_video(tmp_path / "dive.mp4", *scene, OPTIONS)
    assert warnings == ["gone is not in the video: its checkpoint is gone"]
    frames, fps = read_video(tmp_path / "dive.mp4")
    assert (len(frames), fps) == (7, 5)
    for frame in (frames[0], frames[-1]):
        for column, color in enumerate(((0, 0, 255), (255, 0, 0))):  # in the order of the rows, not of the planning
            x, y = panel_corner(0, column, (80, 60), True)
            assert np.abs(frame[y + 10 : y + 50, x + 10 : x + 70].astype(int) - color).max() < 16


def test_the_path_comes_from_far_to_the_zoom(scene: tuple[list[Result], PreparedCase]) -> None:
    target = torch.tensor(TARGET, dtype=torch.float64)
    dive = plan(RUNS["a"], target, 9.0, OPTIONS)
    assert len(dive.views) == 7 and {(view.width, view.height) for view in dive.views} == {(80, 60)}
    views = [view for view, _ in RUNS["a"].photographs()]
    usual = sorted(float((view.position - target).norm()) for view in views)[1]
    times = zooms(dive.views, target, dive.zoom)
    assert times[-1] == pytest.approx(9.0) and times == sorted(times)
    for view, zoom in zip(dive.views, times):
        assert float((view.position - target).norm()) == pytest.approx(usual / zoom)


def test_the_report_links_its_video(scene: tuple[list[Result], PreparedCase], tmp_path: Path) -> None:
    written = write_report(tmp_path, [result.cell for result in scene[0]], "c", OPTIONS)
    assert tmp_path / "pictures" / "demo-flower-dive.mp4" in written
    text = written[0].read_text()
    assert "(<pictures/demo-flower-dive.mp4>)" in text and "gone is not in the video" in text


def test_scenes_without_a_dive_say_why(scene: tuple[list[Result], PreparedCase], tmp_path: Path) -> None:
    results, case = scene
    with pytest.raises(CloseupError, match="no point to dive at"):
        write_dive_video(tmp_path / "v.mp4", results, PreparedCase(replace(case.case, target_point=None), case.folder))
    with pytest.raises(CloseupError, match="its checkpoint is gone"):
        write_dive_video(tmp_path / "v.mp4", [r for r in results if r.cell.method == "gone"], case)
    (case.folder / "case.json").unlink()
    text = write_report(tmp_path, [result.cell for result in results], "c", OPTIONS)[0].read_text()
    assert "no dive at flower: its case is gone" in text
    assert not list(tmp_path.glob("**/*.mp4"))


def test_frames_that_are_no_numbers_are_black() -> None:
    picture = film(FlatRun((float("nan"), 1.0, 0.5)), facing_views(1)[0])
    assert picture[0, 0].tolist() == [0, 255, 128]


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    frames = side_by_side({"a": [np.zeros((4, 4, 3), np.uint8)]}, {"a": "A"}, [1.0])
    with pytest.raises(CloseupError, match="cannot be written"):
        write_video(tmp_path / "sub" / "v.mp4", frames, 5)
    assert not list((tmp_path / "sub").iterdir())


def test_configs_lie_in_the_bench(tmp_path: Path) -> None:
    cell = made_up_cell(tmp_path, "a")
    assert config_of(cell, {"config": "cells/x/config.yml"}) == tmp_path / "cells" / "x" / "config.yml"
    with pytest.raises(CloseupError, match="not trained here"):
        config_of(cell, {"config": ""})
    with pytest.raises(CloseupError, match="outside"):
        config_of(cell, {"config": "../config.yml"})
