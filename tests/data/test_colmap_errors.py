"""Bad COLMAP models: each ends in a DataError that names the file and says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data import folders
from tests.data.bad_input import damage, message


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.95])
@pytest.mark.parametrize("layout", ["llff", "colmap"])
def test_truncated_model(name: str, keep: float, layout: str, tmp_path: Path) -> None:
    if layout == "llff":
        folders.make_llff(tmp_path, images_bin=True)
    else:
        folders.make_colmap(tmp_path)
    damage(tmp_path / "sparse/0" / name, keep)
    text = message(tmp_path)
    assert name in text
    assert "truncated" in text


@pytest.mark.parametrize("name", ["cameras.txt", "images.txt", "points3D.txt"])
def test_damaged_text_model(name: str, tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, text=True)
    path = tmp_path / "sparse/0" / name
    path.write_text(path.read_text() + "\n7 this is no COLMAP line\n")
    assert name in message(tmp_path)


def test_camera_model_that_nerfstudio_lacks(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, text=True)
    (tmp_path / "sparse/0/cameras.txt").write_text("1 FOV 64 48 57 57 32 24 0.9\n")
    text = message(tmp_path)
    assert "FOV" in text
    assert "image_undistorter" in text


def test_image_of_an_unknown_camera(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path, text=True)
    (tmp_path / "sparse/0/cameras.txt").write_text("2 PINHOLE 64 48 57 57 32 24\n")
    assert "camera 1" in message(tmp_path)


def test_model_without_images(tmp_path: Path) -> None:
    scene = folders.make_colmap(tmp_path)
    folders.write_model(tmp_path / "sparse/0", scene, [])
    assert "registers no image" in message(tmp_path)
