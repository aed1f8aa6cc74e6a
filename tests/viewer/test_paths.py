"""The path that the panel saves: readable by nerfstudio, where it looks, or a reason in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from closeup_ns.errors import CloseupError
from closeup_ns.paths.options import PathOptions
from closeup_ns.planning.target import Target
from closeup_ns.viewer import paths
from closeup_ns.viewer.paths import path_from, write_path
from tests.scenes import analytic_renderer, facing_views

VIEWS = facing_views(4)
NAMES = ["a.png", "b.png", "c.png", "d.png"]
TARGET = Target(torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64), 4.0, 0.4, "made up", ["it may float"])
RENDER = analytic_renderer(boxes=())


@pytest.fixture(autouse=True)
def six_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "OPTIONS", PathOptions(seconds=1.0, fps=6.0))


def test_a_dive_from_a_photograph_and_from_the_viewport() -> None:
    starts = []
    for viewport in (None, VIEWS[2]):
        content = path_from("dive", viewport, TARGET, NAMES, VIEWS, RENDER)
        assert len(content["camera_path"]) == 6 and content["fps"] == 6.0
        assert content["closeup"]["zoom"] == pytest.approx(27.0)
        assert "it may float" in content["closeup"]["warnings"]
        matrix = torch.tensor(content["camera_path"][0]["camera_to_world"]).reshape(4, 4)
        starts.append(matrix[:3, 3].double())
    assert min(float((starts[0] - view.position).norm()) for view in VIEWS) < 1e-6
    torch.testing.assert_close(starts[1], VIEWS[2].position, atol=1e-6, rtol=0)


def test_it_lies_where_the_render_tab_looks_or_in_the_runs_folder(tmp_path: Path) -> None:
    content = {"closeup": {"zoom": 9.0, "warnings": ["slowly"]}}
    told = write_path(content, "a-path", tmp_path / "data", tmp_path / "run")
    assert json.loads((tmp_path / "data" / "camera_paths" / "a-path.json").read_text()) == content
    assert "Render tab" in told and "to 9.0x" in told and "slowly" in told
    (tmp_path / "file").write_text("a file, not a folder")
    told = write_path(content, "p", tmp_path / "file", tmp_path / "run")
    assert (tmp_path / "run" / "camera_paths" / "p.json").is_file() and "cannot be written" in told
    with pytest.raises(CloseupError, match="cannot write .*choose another place"):
        write_path(content, "p", tmp_path / "file", tmp_path / "file")


@pytest.mark.parametrize("name", ["", "../up", "a b", "/etc/passwd", "x" * 80])
def test_names_stay_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(CloseupError, match="no name for a path"):
        write_path({"closeup": {"zoom": 1.0, "warnings": []}}, name, tmp_path, tmp_path)
