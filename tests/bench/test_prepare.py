"""Scenes made of a small capture: nothing of the test is in what may be trained on, and pictures fit their cameras."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from closeup_ns.bench.scenes.photographs import load_photographs
from closeup_ns.bench.scenes.prepare import prepare_scene
from closeup_ns.bench.scenes.protocol import Scene, load_protocol
from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.data.pictures import to_bytes
from closeup_ns.data.ply import write_points
from closeup_ns.errors import DataError
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View, look_at
from tests.data import folders
from tests.integration.captures import write_colmap
from tests.scenes import analytic_renderer, intrinsics

UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
TARGET = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
RENDER: Renderer = analytic_renderer(boxes=())


def cameras() -> list[View]:
    """Twelve far cameras and six near ones, of a wall that they look at."""
    views = []
    for index in range(18):
        depth = 4.0 if index < 12 else 1.5
        offset = torch.tensor([0.15 * (index % 6) - 0.4, 0.1 * (index % 3) - 0.1, -depth], dtype=torch.float64)
        views.append(look_at(TARGET + offset, TARGET, UP, intrinsics(64, 48), 64, 48))
    return views


def write(folder: Path, **extra: object) -> Path:
    views = cameras()
    photographs = [to_bytes(RENDER(view).color).numpy() for view in views]
    c2w, no_points = torch.stack([view.c2w for view in views]).numpy(), np.zeros((0, 3))
    seen = folders.Scene(no_points, no_points.astype(np.uint8), c2w, views[0].K.numpy(), (64, 48), photographs)
    folders.make_transforms(folder, scene=seen, ply=False)
    folders.edit_json(folder / "transforms.json", **extra)
    return folder


def scene(_file: Path, **rule: object) -> Scene:
    """A protocol's scene with this rule, by way of a file as a user writes it."""
    _file.write_text(yaml.safe_dump({"scenes": [{"name": "wall", "data": "wall", **rule}]}))
    return load_protocol(str(_file)).scenes[0]


def test_far_photographs_are_trained_on_and_near_ones_looked_at(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="distance", hold_out_every=6, frontier="test", _file=tmp_path / "p.yaml")
    prepared = prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene")
    found = prepared.cameras()
    assert [camera.scale for camera in found] == [1.0] + [2.5] * 6  # 4 against 1.5 is 2.7, rounded to halves
    trained = {path.stem for path in (prepared.capture / "images").iterdir()}
    assert trained.isdisjoint(camera.name for camera in found) and len(trained) == 11
    for camera in found:
        assert camera.truth is not None
        picture = np.asarray(Image.open(camera.truth))
        assert np.array_equal(picture, to_bytes(RENDER(camera.view).color).numpy())
    frontier = read_cameras(prepared.folder / prepared.record.frontier)
    assert {camera.name for camera in frontier} == {camera.name for camera in found if camera.scale > 1}
    assert all(camera.truth is None for camera in frontier)
    parser = CloseupDataParserConfig(data=prepared.capture).setup()
    assert len(parser.get_dataparser_outputs("train").image_filenames) == 11
    assert "points3D_xyz" not in parser.get_dataparser_outputs("train").metadata


def test_a_scene_is_kept_until_its_settings_change(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="distance", _file=tmp_path / "p.yaml")
    prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene")
    before = (tmp_path / "scene" / "cameras.json").stat().st_mtime_ns
    prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene")
    assert (tmp_path / "scene" / "cameras.json").stat().st_mtime_ns == before
    os.utime(tmp_path / "scene" / "cameras.json", (1, 1))  # a file system's clock may stand still between two writes
    other = scene(kind="distance", threshold=2.2, _file=tmp_path / "p.yaml")
    prepare_scene("mine", other, tmp_path / "data", tmp_path / "scene")
    assert (tmp_path / "scene" / "cameras.json").stat().st_mtime > 1
    (tmp_path / "scene" / "scene.json").unlink()  # killed before it was whole
    assert prepare_scene("mine", other, tmp_path / "data", tmp_path / "scene").record.scene == "wall"


def test_progressive_test_views_have_no_truth_and_come_closer(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="progressive", scales=[3, 9], views_per_scale=2, _file=tmp_path / "p.yaml")
    prepared = prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene")
    assert [(camera.scale, camera.truth) for camera in prepared.cameras()] == [(3.0, None)] * 2 + [(9.0, None)] * 2
    assert len(list((prepared.capture / "images").iterdir())) == 18
    assert prepared.record.target_point == pytest.approx(TARGET.tolist(), abs=1e-3)
    assert any("not clicked" in note for note in prepared.record.notes)


@pytest.mark.parametrize(
    ("rule", "data", "said"),
    [
        ({"kind": "distance", "threshold": 5.0}, "data", "Lower the threshold"),
        ({"kind": "distance"}, "nowhere", "--data names the folder above it"),
        ({"kind": "distance", "split": "given"}, "data", "no lists"),
        (
            {"kind": "native", "scales": [3], "image_side": 64},
            "data",
            "give it a pixel .NAME:COLUMN:ROW .* long side of 64 pixels",
        ),
    ],
)
def test_what_cannot_be_prepared_says_what_to_change(rule: dict[str, Any], data: str, said: str, tmp_path: Path):
    write(tmp_path / "data" / "wall")
    with pytest.raises(DataError, match=said):
        prepare_scene("mine", scene(_file=tmp_path / "p.yaml", **rule), tmp_path / data, tmp_path / "scene")
    assert not (tmp_path / "scene" / "scene.json").exists()


def test_a_distorted_photograph_is_straightened_as_nerfstudio_does(tmp_path: Path):
    """A lens that is known: the straightened picture is that of the pinhole which is returned with it."""
    write(tmp_path / "wall", k1=-0.12)
    (photo, *_) = load_photographs(tmp_path / "wall").photographs
    (plain, *_) = [np.asarray(Image.open(tmp_path / "wall" / "images" / "frame_00000.png"))]
    assert photo.image.shape != plain.shape or not np.array_equal(photo.image, plain)
    assert photo.image.shape[:2] == (photo.view.height, photo.view.width)


def test_what_ns_eval_scores_is_the_data_itself_with_the_target_in_the_models_frame(tmp_path: Path) -> None:
    """The photographs' size may vary from row to row, so the target is a point: the one behind the pixel."""
    xyz = torch.stack([torch.tensor([x, y, 4.0]) for x in np.linspace(-1, 1, 21) for y in np.linspace(-1, 1, 21)])
    folder = write(tmp_path / "data" / "wall", ply_file_path="points.ply")
    write_points(folder / "points.ply", xyz.numpy(), np.full((len(xyz), 3), 128, np.uint8))
    made = scene(kind="native", scales=[3, 9], image_side=64, pixel="frame_00003.png:32:24", _file=tmp_path / "p.yaml")
    prepared = prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene")
    assert prepared.capture.resolve() == folder.resolve() and prepared.record.scored_by == "ns-eval"
    assert not (prepared.folder / "truth").exists() and prepared.record.image_side == 64
    parsed = CloseupDataParserConfig(data=folder).setup().get_dataparser_outputs("train")
    names = [path.stem for path in parsed.image_filenames]
    pose = parsed.cameras.camera_to_worlds[names.index("frame_00003")].double()
    local = (torch.tensor(prepared.record.target_xyz, dtype=torch.float64) - pose[:, 3]) @ pose[:, :3]
    assert (local[:2] / local[2]).abs().max() < 0.02 and local[2] < 0  # the middle of the image, in front (OpenGL)


def test_a_target_in_a_colmap_capture_is_where_ns_train_sees_it(tmp_path: Path) -> None:
    """COLMAP's world is turned before nerfstudio's parser begins: the point must lie behind its pixel all the same."""
    folder = tmp_path / "data" / "wall"
    write_colmap(folder)
    made = scene(kind="native", scales=[3], image_side=64, pixel="IMG_0003.png:40:20", _file=tmp_path / "p.yaml")
    record = prepare_scene("mine", made, tmp_path / "data", tmp_path / "scene").record
    parsed = CloseupDataParserConfig(data=folder).setup().get_dataparser_outputs("train")
    index = [path.name for path in parsed.image_filenames].index("IMG_0003.png")
    pose, camera = parsed.cameras.camera_to_worlds[index].double(), parsed.cameras[index]
    local = (torch.tensor(record.target_xyz, dtype=torch.float64) - pose[:, 3]) @ pose[:, :3]
    column = float(camera.cx - camera.fx * local[0] / local[2])
    row = float(camera.cy + camera.fy * local[1] / local[2])
    assert local[2] < 0 and (column, row) == pytest.approx((40.5, 20.5), abs=1e-3)
