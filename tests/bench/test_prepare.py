"""Cases made of a small capture: nothing of the test is in what may be trained on, and pictures fit their cameras."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from closeup_ns.bench.photographs import load_photographs
from closeup_ns.bench.prepare import prepare_case
from closeup_ns.bench.protocol import Scene, load_protocol
from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.errors import DataError
from closeup_ns.evaluation.pictures import quantise
from closeup_ns.rendering.types import Renderer
from closeup_ns.views.view import View, look_at
from tests.conftest import shared_data
from tests.scenes import analytic_renderer, intrinsics

UP = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
TARGET = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
RENDER: Renderer = analytic_renderer(boxes=())
_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)


def cameras() -> list[View]:
    """Twelve far cameras and six near ones, of a wall that they look at."""
    views = []
    for index in range(18):
        depth = 4.0 if index < 12 else 1.5
        offset = torch.tensor([0.15 * (index % 6) - 0.4, 0.1 * (index % 3) - 0.1, -depth], dtype=torch.float64)
        views.append(look_at(TARGET + offset, TARGET, UP, intrinsics(64, 48), 64, 48))
    return views


def write(folder: Path, **extra: object) -> Path:
    (folder / "images").mkdir(parents=True)
    frames = []
    for index, view in enumerate(cameras()):
        path = folder / "images" / f"p{index:02}.png"
        Image.fromarray(quantise(RENDER(view).color).numpy()).save(path)
        matrix = (view.c2w * _OPENGL).tolist()
        frames.append({"file_path": f"images/{path.name}", "transform_matrix": matrix})
    K = cameras()[0].K
    lens = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": 32, "cy": 24, "w": 64, "h": 48}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames, **extra}))
    return folder


def scene(_file: Path, **rule: object) -> Scene:
    """A protocol's scene with this rule, by way of a file as a user writes it."""
    _file.write_text(yaml.safe_dump({"scenes": [{"name": "wall", "data": "wall", **rule}]}))
    return load_protocol(str(_file)).scenes[0]


def test_far_photographs_are_trained_on_and_near_ones_looked_at(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="distance", hold_out_every=6, frontier="test", _file=tmp_path / "p.yaml")
    case = prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    found = case.cameras()
    assert [camera.scale for camera in found] == [1.0] + [2.5] * 6  # 4 against 1.5 is 2.7, rounded to halves
    trained = {path.stem for path in (case.capture / "images").iterdir()}
    assert trained.isdisjoint(camera.name for camera in found) and len(trained) == 11
    for camera in found:
        assert camera.truth is not None
        picture = np.asarray(Image.open(camera.truth))
        assert np.array_equal(picture, quantise(RENDER(camera.view).color).numpy())
    frontier = read_cameras(case.folder / case.case.frontier)
    assert {camera.name for camera in frontier} == {camera.name for camera in found if camera.scale > 1}
    assert all(camera.truth is None for camera in frontier)
    parser = CloseupDataParserConfig(data=case.capture).setup()
    assert len(parser.get_dataparser_outputs("train").image_filenames) == 11
    assert "points3D_xyz" not in parser.get_dataparser_outputs("train").metadata


def test_a_case_is_kept_until_its_settings_change(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="distance", _file=tmp_path / "p.yaml")
    prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    before = (tmp_path / "case" / "cameras.json").stat().st_mtime_ns
    prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    assert (tmp_path / "case" / "cameras.json").stat().st_mtime_ns == before
    os.utime(tmp_path / "case" / "cameras.json", (1, 1))  # a file system's clock may stand still between two writes
    other = scene(kind="distance", threshold=2.2, _file=tmp_path / "p.yaml")
    prepare_case("mine", other, tmp_path / "data", tmp_path / "case")
    assert (tmp_path / "case" / "cameras.json").stat().st_mtime > 1
    (tmp_path / "case" / "case.json").unlink()  # killed before it was whole
    assert prepare_case("mine", other, tmp_path / "data", tmp_path / "case").case.scene == "wall"


def test_progressive_test_views_have_no_truth_and_come_closer(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="progressive", scales=[3, 9], views_per_scale=2, _file=tmp_path / "p.yaml")
    case = prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    assert [(camera.scale, camera.truth) for camera in case.cameras()] == [(3.0, None)] * 2 + [(9.0, None)] * 2
    assert len(list((case.capture / "images").iterdir())) == 18
    assert case.case.target_point == pytest.approx(TARGET.tolist(), abs=1e-3)
    assert any("not clicked" in note for note in case.case.notes)


def test_a_threshold_that_leaves_nothing_says_what_would(tmp_path: Path):
    write(tmp_path / "data" / "wall")
    made = scene(kind="distance", threshold=5.0, _file=tmp_path / "p.yaml")
    with pytest.raises(DataError, match="Lower the threshold"):
        prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    with pytest.raises(DataError, match="--data names the folder above it"):
        prepare_case("mine", made, tmp_path / "nowhere", tmp_path / "case")
    given = scene(kind="distance", split="given", _file=tmp_path / "p.yaml")
    with pytest.raises(DataError, match="no lists"):
        prepare_case("mine", given, tmp_path / "data", tmp_path / "case")


def test_half_of_the_images_missing_is_named(tmp_path: Path):
    folder = write(tmp_path / "data" / "wall")
    for path in sorted((folder / "images").iterdir())[::2]:
        path.unlink()
    made = scene(kind="distance", _file=tmp_path / "p.yaml")
    with pytest.raises(DataError, match="p00"):
        prepare_case("mine", made, tmp_path / "data", tmp_path / "case")
    assert not (tmp_path / "case" / "case.json").exists()


def test_a_distorted_photograph_is_straightened_as_nerfstudio_does(tmp_path: Path):
    """A lens that is known: the straightened picture is that of the pinhole which is returned with it."""
    write(tmp_path / "wall", k1=-0.12, camera_model="OPENCV")
    (photo, *_) = load_photographs(tmp_path / "wall").photographs
    (plain, *_) = [np.asarray(Image.open(tmp_path / "wall" / "images" / "p00.png"))]
    assert photo.image.shape != plain.shape or not np.array_equal(photo.image, plain)
    assert photo.image.shape[:2] == (photo.view.height, photo.view.width)


@pytest.mark.slow
def test_zoom_on_real_photographs_trains_on_small_and_tests_on_large(tmp_path: Path):
    data = shared_data()
    made = load_protocol("zoom").scenes[0]
    case = prepare_case("zoom", made, data, tmp_path / "case")
    far = [camera for camera in case.cameras() if camera.scale == 1]
    near = [camera for camera in case.cameras() if camera.scale > 1]
    assert len(far) == 5 and len(near) == 20 and {camera.scale for camera in near} == {2.0}
    # The four crops of a photograph, reduced, are the small photograph.
    name = far[0].name
    pictures = {c.name: Image.open(c.truth) for c in (*far, *near) if c.truth is not None and c.name.startswith(name)}
    width, height = pictures[name].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for tile in ("00", "01", "10", "11"):
        whole.paste(pictures[f"{name}_{tile}"], (int(tile[1]) * width, int(tile[0]) * height))
    reduced = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS), dtype=float)
    error = np.sqrt(np.mean((reduced - np.asarray(pictures[name], dtype=float)) ** 2))
    assert error < 12
