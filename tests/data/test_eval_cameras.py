"""Lists of cameras: an exact round trip, other people's transforms.json, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.data.eval_cameras import EvalCamera, photographs_of, read_cameras, write_cameras
from closeup_ns.errors import DataError
from tests.scenes import facing_views


def test_a_round_trip_is_exact(tmp_path: Path):
    views, truth = facing_views(3), tmp_path / "truth"
    truth.mkdir()
    written = [
        EvalCamera("far", 1.0, views[0], truth / "far.png"),
        EvalCamera("near_a", 3.0, views[1], truth / "near_a.png", truth / "mask.png"),
        EvalCamera("near_b", 9.0, views[2]),
    ]
    write_cameras(tmp_path / "cameras.json", written)
    for before, after in zip(written, read_cameras(tmp_path / "cameras.json"), strict=True):
        assert replace(after, view=before.view).__dict__ == before.__dict__
        assert after.view.to_dict() == before.view.to_dict()


def test_a_transforms_json_with_one_lens_for_all_is_read(tmp_path: Path):
    pose = torch.eye(4).tolist()
    content: dict[str, Any] = {"w": 40, "h": 30, "fl_x": 50, "fl_y": 51, "cx": 20, "cy": 15}
    content["frames"] = [{"file_path": "images/b.jpg", "transform_matrix": pose}]
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    (camera,) = read_cameras(tmp_path / "transforms.json")
    assert camera.name == "b" and camera.scale == 1.0 and camera.truth == tmp_path / "images" / "b.jpg"
    assert camera.view.K.tolist() == [[50, 0, 20], [0, 51, 15], [0, 0, 1]]
    assert camera.view.forward.tolist() == [0, 0, -1]  # OpenGL looks along -z


def test_photographs_of_a_rig_keep_their_names_and_the_training_lists_theirs(tmp_path: Path):
    frames = [{"file_path": f"images/{side}/0.png", "transform_matrix": torch.eye(4).tolist()} for side in "lr"]
    content = {"w": 40, "h": 30, "fl_x": 50, "frames": frames, "train_filenames": ["images/r/0.png"]}
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert [camera.name for camera in read_cameras(tmp_path / "transforms.json")] == ["l_0", "r_0"]
    assert [path for _, path in photographs_of(tmp_path / "transforms.json")] == [tmp_path / "images/r/0.png"]


def test_a_list_without_photographs_is_refused_where_they_are_needed(tmp_path: Path):
    write_cameras(tmp_path / "cameras.json", [EvalCamera("far", 1.0, facing_views(1)[0])])
    with pytest.raises(DataError, match="names no photographs"):
        photographs_of(tmp_path / "cameras.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_path": "../secret.png"}, "outside"),
        ({"mask_path": "../secret.png"}, "outside"),
        ({"transform_matrix": 1}, "shape"),
        ({"name": "a/b"}, "cannot name a picture"),
        ({"name": ""}, "lacks both name and file_path"),
        ({"name": "other"}, "two cameras called other"),
        ({"fl_x": None}, "fl_x"),
        ({"w": None}, "size is missing"),
        ({"k1": 0.1}, "without distortion"),
        ({"camera_model": "OPENCV_FISHEYE"}, "pinhole"),
        *(({"scale": value}, "scale|float") for value in ("near", 0, -1, float("nan"), float("inf"), [1])),
    ],
)
def test_damage_is_refused_with_the_place(tmp_path: Path, change: dict, message: str):
    views = zip(("one", "other"), facing_views(2), strict=True)
    write_cameras(tmp_path / "cameras.json", [EvalCamera(name, 3.0, view) for name, view in views])
    content = json.loads((tmp_path / "cameras.json").read_text())
    content["frames"][0].update(change)
    (tmp_path / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_cameras(tmp_path / "cameras.json")
    assert "cameras.json" in str(caught.value)
