"""`save_path`: what the command and the viewer's button call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nerfstudio.cameras.camera_paths import get_path_from_json

from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.paths.options import Kind, PathOptions
from closeup_ns.paths.save import save_path
from tests.paths.rig import BALL, TARGET, view_from
from tests.scenes import facing_views

SMALL = PathOptions(frames=12, check_steps=5, check_size=24)


@pytest.mark.parametrize("kind", ["dive", "orbit", "pull-back"])
def test_every_kind_is_written_and_read_back_by_nerfstudio(kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "camera_paths" / "path.json"
    start = view_from(0.3, 0.1, 0.0)
    path = save_path(kind, start, TARGET, BALL, SMALL, file, known=facing_views(4), reference_distance=5.0, fps=24)
    content = json.loads(file.read_text())
    assert content["closeup"]["kind"] == kind == path.kind and content["closeup"]["zoom"] == pytest.approx(path.zoom)
    assert path.zoom == pytest.approx(3.0 if kind == "orbit" else 27.0)
    assert content["fps"] == 24 and content["seconds"] == pytest.approx(0.5)
    cameras = get_path_from_json(content)
    assert (int(cameras.width[0]), int(cameras.height[0])) == (160, 120)
    assert len(cameras) == 12 and sorted(found.name for found in file.parent.iterdir()) == ["path.json"]
    for index, view in enumerate(path.views):
        opengl = cameras.camera_to_worlds[index].double()
        torch.testing.assert_close(opengl[:, 3], view.position, atol=1e-6, rtol=0)
        torch.testing.assert_close(-opengl[:, 2], view.forward, atol=1e-6, rtol=0)
        torch.testing.assert_close(opengl[:, 1], -view.c2w[:3, 1], atol=1e-6, rtol=0)
        assert float(cameras.fy[index]) == pytest.approx(float(view.K[1, 1]), rel=1e-5)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for file in (tmp_path, tmp_path / "file" / "path.json"):
        with pytest.raises(CloseupError, match=f"cannot write {file}: .* choose another place"):
            save_path("dive", view_from(0.3, 0.1, 0.0), TARGET, BALL, SMALL, file)


def test_where_there_is_no_path_no_file_appears(tmp_path: Path) -> None:
    file = tmp_path / "camera_paths" / "path.json"
    with pytest.raises(PlanningError, match="behind"):
        save_path("dive", view_from(0, 0, 0, aim=(0.0, 0.0, -4.0)), TARGET, BALL, SMALL, file)
    assert not file.parent.exists()
