"""Captures at the edge of what numbers, cameras and point clouds can be: read right, or with a word of warning."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.studio.datamanager import CloseupDatamanagerConfig
from tests.data import folders
from tests.data.test_parser_geometry import parse

MAP = np.array([5.0e5, 5.3e6, 120.0])
"""Metres east and north, as surveyors' software writes them."""


def move_cameras(path: Path, offset: np.ndarray, spread: float = 1.0) -> None:
    """Shift the cameras by ``offset``, after shrinking their distances from each other to ``spread``."""
    meta = json.loads((path / "transforms.json").read_text())
    matrices = np.array([frame["transform_matrix"] for frame in meta["frames"]])
    middle = matrices[:, :3, 3].mean(0)
    matrices[:, :3, 3] = middle + spread * (matrices[:, :3, 3] - middle) + offset
    for frame, matrix in zip(meta["frames"], matrices, strict=True):
        frame["transform_matrix"] = matrix.tolist()
    (path / "transforms.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("center_method", ["poses", "focus"])
def test_coordinates_of_a_map_lose_nothing(center_method: str, tmp_path: Path) -> None:
    outputs = []
    for name, offset in (("here", np.zeros(3)), ("there", MAP)):
        scene = folders.make_transforms(tmp_path / name)
        move_cameras(tmp_path / name, offset)
        folders.write_ply(tmp_path / name / "sparse_pc.ply", scene.xyz + offset, scene.rgb)
        outputs.append(parse(tmp_path / name, center_method=center_method))
    here, there = outputs
    torch.testing.assert_close(there.cameras.camera_to_worlds, here.cameras.camera_to_worlds, atol=2e-5, rtol=0)
    torch.testing.assert_close(there.metadata["points3D_xyz"], here.metadata["points3D_xyz"], atol=2e-4, rtol=0)
    assert there.dataparser_scale == pytest.approx(here.dataparser_scale, rel=1e-4)


def test_coordinates_that_are_not_to_be_centred_stay(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    move_cameras(tmp_path, np.array([0.0, 0.0, 1e4]))
    options = {"center_method": "none", "orientation_method": "none", "auto_scale_poses": False}
    assert (parse(tmp_path, **options).cameras.camera_to_worlds[:, 2, 3] > 9e3).all()


@pytest.mark.parametrize(("spread", "warned"), [(0.0, True), (1e-10, True), (1e-3, False)])
def test_cameras_in_one_place_are_not_blown_up(
    spread: float, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What rounding leaves of their distances is not made the size of the world."""
    folders.make_transforms(tmp_path)
    move_cameras(tmp_path, np.zeros(3), spread)
    outputs = parse(tmp_path)
    assert (outputs.dataparser_scale == 1.0) == warned
    assert ("stand in one place" in " ".join(capsys.readouterr().out.split())) == warned
    assert float(outputs.cameras.camera_to_worlds.abs().max()) < 10


def test_points_far_out_of_the_scene_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = folders.make_transforms(tmp_path)
    many, colours = np.tile(scene.xyz, (10, 1)), np.tile(scene.rgb, (10, 1))
    center = scene.c2w[:, :3, 3].mean(0)
    many[7] = center + 40 * (many[7] - center)  # a mountain behind the house
    many[[3, 50]] = center + 1e4 * (many[[3, 50]] - center)
    folders.write_ply(tmp_path / "sparse_pc.ply", many, colours)
    outputs = parse(tmp_path)
    assert len(outputs.metadata["points3D_xyz"]) == len(outputs.metadata["points3D_rgb"]) == len(many) - 2
    assert "2 sparse points are far out of the scene" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("k1", [0.0, 0.05])
def test_a_fisheye_photograph_becomes_a_pinhole_photograph(k1: float, tmp_path: Path) -> None:
    """Also one without distortion, which nerfstudio takes for a pinhole's. theta_d = theta (1 + k1 theta^2)."""
    scene = folders.make_transforms(tmp_path, n=3, size=(96, 72))
    focal, theta = 40.0, np.array([0.3, 0.6])
    image = np.zeros((72, 96, 3), np.uint8)
    for radius in focal * theta * (1 + k1 * theta**2):
        image[34:39, round(48 + radius) - 1 : round(48 + radius) + 2] = 255
    for index in range(scene.n):
        folders.save_image(tmp_path / f"images/frame_{index:05d}.png", image)
    lens = {"fl_x": focal, "fl_y": focal, "cx": 48.0, "cy": 36.0, "k1": k1}
    folders.edit_json(tmp_path / "transforms.json", camera_model="OPENCV_FISHEYE", **lens)
    parser = CloseupDataParserConfig(data=tmp_path, train_on_all=True)
    manager = CloseupDatamanagerConfig(data=tmp_path, dataparser=parser).setup(device="cpu")
    row = manager.photograph(0)[36, :, 0]
    K = manager.train_view(0).K
    for expected in (K[0, 0] * torch.tan(torch.from_numpy(theta)) + K[0, 2]).tolist():
        nearby = row[max(0, int(expected) - 4) : int(expected) + 5]
        middle = (nearby * torch.arange(len(nearby))).sum() / nearby.sum() + max(0, int(expected) - 4) + 0.5
        assert float(middle) == pytest.approx(expected, abs=0.8)
    # ns-eval and ns-render draw a camera by its type, and this one's photograph is a pinhole's now.
    assert (manager.train_dataset.cameras.camera_type == CameraType.PERSPECTIVE.value).all()
