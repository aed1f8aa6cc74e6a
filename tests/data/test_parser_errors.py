"""Bad input: each kind ends in a DataError that names the file and says what to do, never in another exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.errors import DataError
from tests.data import folders
from tests.data.bad_input import damage, load, message


def change_frames(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    meta = json.loads((path / "transforms.json").read_text())
    change(meta["frames"])
    (path / "transforms.json").write_text(json.dumps(meta))


# ----------------------------------------------------------------------------------------------- the folder as a whole


def test_missing_folder(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "nowhere")
    assert "does not exist" in message(tmp_path / "nowhere.json")


def test_unknown_layout_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").touch()
    text = message(tmp_path)
    for word in ("transforms.json", "poses_bounds.npy", "sparse/0", "colmap/sparse/0", "video.mp4", "ns-process-data"):
        assert word in text


def test_layout_can_be_forced(tmp_path: Path) -> None:
    folders.make_llff(tmp_path, images_bin=True)
    assert "transforms.json" in message(tmp_path, layout="transforms")
    load(tmp_path, layout="colmap")


# --------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("layout", ["llff", "colmap", "transforms"])
def test_no_images(layout: str, tmp_path: Path) -> None:
    {"llff": folders.make_llff, "colmap": folders.make_colmap, "transforms": folders.make_transforms}[layout](tmp_path)
    for folder in tmp_path.glob("images*"):
        shutil.rmtree(folder)
    text = message(tmp_path)
    assert "images" in text
    assert str(tmp_path) in text


def test_empty_image_folder(tmp_path: Path) -> None:
    folders.make_llff(tmp_path, images=False, factors=())
    (tmp_path / "images").mkdir()
    assert "neither images/ nor images_N/" in message(tmp_path)


@pytest.mark.parametrize("layout", ["llff", "colmap", "transforms"])
def test_one_image(layout: str, tmp_path: Path) -> None:
    {"llff": folders.make_llff, "colmap": folders.make_colmap, "transforms": folders.make_transforms}[layout](
        tmp_path, n=1
    )
    assert "single image" in message(tmp_path)


def test_image_that_is_none(tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    (tmp_path / "images/IMG_0003.png").write_bytes(b"not an image")
    text = message(tmp_path)
    assert "IMG_0003.png" in text
    assert "cannot be read" in text


def test_empty_image_file(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    (tmp_path / "images/frame_00002.png").write_bytes(b"")
    assert "frame_00002.png" in message(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_image_is_named_when_it_is_loaded(suffix: str, tmp_path: Path) -> None:
    """The header is whole, so only decoding can find this out; nerfstudio's loader would not say which file."""
    folders.make_llff(tmp_path, sparse=False, factors=())
    generator = np.random.default_rng(0)
    for path in (tmp_path / "images").iterdir():
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path.with_suffix(suffix))
        if suffix != ".png":
            path.unlink()
    damage(tmp_path / f"images/IMG_0004{suffix}", 0.5)
    text = message(tmp_path)
    assert f"IMG_0004{suffix}" in text
    assert "cannot be decoded" in text


def test_mixed_sizes_in_an_llff_folder(tmp_path: Path) -> None:
    scene = folders.make_llff(tmp_path, factors=())
    folders.save_image(tmp_path / "images/IMG_0002.png", scene.photograph(2), factor=2)
    text = message(tmp_path)
    assert "IMG_0002.png is 32x24" in text
    assert "IMG_0000.png is 64x48" in text


@pytest.mark.parametrize("layout", ["llff", "colmap", "transforms"])
def test_rotated_images(layout: str, tmp_path: Path) -> None:
    {"llff": folders.make_llff, "colmap": folders.make_colmap, "transforms": folders.make_transforms}[layout](tmp_path)
    for path in (tmp_path / "images").iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert "rotated" in message(tmp_path, downscale_factor=1)


def save_turned(path: Path, orientation: int) -> None:
    """The picture at ``path`` as a JPEG turned by 90 degrees that says so."""
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif)


def as_jpeg(frames: list[dict[str, Any]]) -> None:
    for frame in frames:
        frame["file_path"] = frame["file_path"].replace(".png", ".jpg")


def test_images_whose_exif_data_turns_them(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    change_frames(tmp_path, as_jpeg)
    for path in sorted((tmp_path / "images").iterdir()):
        save_turned(path, 6)
    assert "rotated by 90 degrees" in (text := message(tmp_path)) and "mogrify -auto-orient" in text


def test_exif_data_that_is_not_obeyed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cameras of the stored pixels, as COLMAP makes them: right, but whoever looked at the photographs may wonder."""
    folders.make_transforms(tmp_path, size=(48, 48))
    change_frames(tmp_path, as_jpeg)
    for index, path in enumerate(sorted((tmp_path / "images").iterdir())):
        save_turned(path, 6 if index < 2 else 1)
    load(tmp_path)
    assert "2 of 6 images say in their EXIF data" in " ".join(capsys.readouterr().out.split())


def test_blenders_layout_names_its_parser(tmp_path: Path) -> None:
    (tmp_path / "transforms_train.json").write_text("{}")
    assert "blender-data" in message(tmp_path)


def test_sixteen_bit_images(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    folders.save_image(tmp_path / "images/frame_00001.png", np.full((48, 64), 40_000, np.uint16))
    text = message(tmp_path)
    assert "frame_00001.png" in text
    assert "8-bit" in text and "-depth 8" in text


def test_mask_of_the_wrong_size(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, masks=True)
    folders.save_image(tmp_path / "masks/frame_00002.png", np.full((20, 64), 255, np.uint8))
    text = message(tmp_path)
    assert "masks/frame_00002.png is 64x20" in text
    assert "64x48" in text


def test_missing_mask(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, masks=True)
    (tmp_path / "masks/frame_00002.png").unlink()
    assert "masks/frame_00002.png" in message(tmp_path)
    folders.make_colmap(tmp_path / "colmap-capture")
    assert "no mask" in message(tmp_path / "colmap-capture", masks_path=Path("masks"))


def test_masks_for_some_frames_only(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, masks=True)
    change_frames(tmp_path, lambda frames: frames[0].pop("mask_path"))
    assert "5 of 6 frames have a mask" in message(tmp_path)


def test_downscale_factor_below_one(tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    assert "downscale_factor is 0" in message(tmp_path, downscale_factor=0)


# ----------------------------------------------------------------------------------------------------- poses_bounds.npy


@pytest.mark.parametrize("rows", [5, 7])
def test_poses_bounds_of_the_wrong_length(rows: int, tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    poses = np.load(tmp_path / "poses_bounds.npy")
    np.save(tmp_path / "poses_bounds.npy", np.concatenate([poses, poses])[:rows])
    text = message(tmp_path)
    assert f"{rows} poses" in text
    assert "images/ has 6" in text


@pytest.mark.parametrize("shape", [(6, 15), (6, 3, 5), (17,), (0, 17)])
def test_poses_bounds_of_the_wrong_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.zeros(shape))
    assert "poses_bounds.npy" in message(tmp_path)


def test_poses_bounds_with_nan(tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    poses = np.load(tmp_path / "poses_bounds.npy")
    poses[3, 7] = np.nan
    np.save(tmp_path / "poses_bounds.npy", poses)
    text = message(tmp_path)
    assert "row 3" in text
    assert "NaN" in text


def test_poses_bounds_with_wrong_bounds(tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    poses = np.load(tmp_path / "poses_bounds.npy")
    poses[2, 15:] = 5, 4
    np.save(tmp_path / "poses_bounds.npy", poses)
    assert "row 2 has the depth bounds 5, 4" in message(tmp_path)


def test_poses_bounds_with_other_axes(tmp_path: Path) -> None:
    """A mirrored pose trains a mirrored mess; it is refused instead."""
    folders.make_llff(tmp_path)
    poses = np.load(tmp_path / "poses_bounds.npy")
    poses[1, [0, 5, 10]] *= -1
    np.save(tmp_path / "poses_bounds.npy", poses)
    text = message(tmp_path)
    assert "row 1" in text
    assert "not a rotation" in text


def test_poses_bounds_that_is_no_array(tmp_path: Path) -> None:
    folders.make_llff(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    assert "cannot be read" in message(tmp_path)


# ------------------------------------------------------------------------------------------------------ transforms.json


@pytest.mark.parametrize("file_path", ["../../etc/photo.png", "/etc/photo.png", "images/../../other/photo.png"])
def test_paths_that_leave_the_folder(file_path: str, tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    change_frames(tmp_path, lambda frames: frames[0].update(file_path=file_path))
    text = message(tmp_path)
    assert "outside of the data folder" in text
    assert file_path in text


@pytest.mark.parametrize("key", ["mask_path", "depth_file_path"])
def test_other_paths_that_leave_the_folder(key: str, tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, masks=True, depths=True)
    change_frames(tmp_path, lambda frames: frames[0].update({key: "../x.png"}))
    assert "outside" in message(tmp_path)


def test_points_and_lists_that_leave_the_folder(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    folders.edit_json(tmp_path / "transforms.json", ply_file_path="../sparse_pc.ply")
    assert "outside" in message(tmp_path)
    folders.edit_json(tmp_path / "transforms.json", ply_file_path=None, train_filenames=["../../a.png"])
    assert "outside" in message(tmp_path)


def test_absolute_path_inside_the_folder_is_fine(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    inside = str((tmp_path / "images/frame_00005.png").absolute())
    change_frames(tmp_path, lambda frames: frames[0].update(file_path=inside))
    load(tmp_path)


def test_colmap_names_that_leave_the_folder(tmp_path: Path) -> None:
    scene = folders.make_colmap(tmp_path, n=2)
    folders.write_model(tmp_path / "sparse/0", scene, ["../../a.png", "IMG_0001.png"])
    assert "outside" in message(tmp_path)


def test_missing_frames(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    for index in (1, 4):
        (tmp_path / f"images/frame_{index:05d}.png").unlink()
    text = message(tmp_path)
    assert "6 frames, of which 2" in text and "frame_00001.png" in text and "frame_00004.png" in text


def test_missing_colmap_images(tmp_path: Path) -> None:
    folders.make_colmap(tmp_path)
    (tmp_path / "images/IMG_0001.png").unlink()
    text = message(tmp_path)
    assert "lacks 1 of the 6" in text
    assert "IMG_0001.png" in text


def test_malformed_json(tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    damage(tmp_path / "transforms.json", 0.5)
    text = message(tmp_path)
    assert "transforms.json is not valid JSON" in text
    assert "line 1" in text


@pytest.mark.parametrize("content", ["[]", "{}", '{"frames": {}}', '{"frames": [1]}', '{"frames": []}', "\xff"])
def test_json_without_frames(content: str, tmp_path: Path) -> None:
    (tmp_path / "transforms.json").write_text(content, encoding="latin-1")
    assert "transforms.json" in message(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"file_path": None}, "file_path"),
        ({"file_path": "images/frame_00000.png"}, "two frames"),
        ({"transform_matrix": [[1, 2], [3, 4]]}, "shape (2, 2)"),
        ({"transform_matrix": "eye"}, "not a matrix"),
        ({"transform_matrix": [[1, 2], [3]]}, "not a matrix"),
        ({"transform_matrix": np.full((4, 4), np.nan).tolist()}, "NaN"),
        ({"transform_matrix": (np.eye(4) * 2).tolist()}, "not a rotation"),
        ({"fl_x": "wide"}, "'fl_x'"),
        ({"fl_x": -5}, "intrinsics"),
        ({"w": 0}, "intrinsics"),
        ({"w": 1e300}, "'w'"),
        ({"camera_model": "PERISCOPE"}, "PERISCOPE"),
        ({"camera_model": []}, "unknown"),
        ({"camera_model": "EQUIRECTANGULAR"}, "ns-process-data images --camera-type equirectangular"),
        ({"camera_model": "ORTHOPHOTO"}, "only pinhole and fisheye"),
        ({"k4": 0.1}, "k4 is 0.1"),
        ({"distortion_params": [0.1, 0.0, 0.0, 0.0]}, "4 distortion parameters; PERSPECTIVE has 6"),
        ({"distortion_params": 3}, "distortion_params"),
        ({"distortion_params": [0.0, 0.0]}, "distortion parameters"),
        ({"mask_path": "masks/none.png"}, "does not exist"),
    ],
)
def test_unusable_frame(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    change_frames(tmp_path, lambda frames: frames[0].update(change))
    assert word in message(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"fl_x": None, "fl_y": None}, "focal length"),
        ({"applied_transform": [[1, 0], [0, 1]]}, "applied_transform"),
        ({"applied_transform": "none"}, "applied_transform"),
        ({"applied_scale": "big"}, "applied_scale"),
        ({"orientation_override": "sideways"}, "orientation_override"),
        ({"train_filenames": "images/frame_00000.png"}, "not a list"),
        ({"test_filenames": ["images/frame_00099.png"]}, "belong to no frame"),
        ({"train_filenames": []}, "no image to train on"),
        ({"ply_file_path": "nowhere.ply"}, "nowhere.ply"),
        ({"ply_file_path": 3}, "ply_file_path"),
        ({"fisheye_crop_radius": "wide"}, "fisheye_crop_radius"),
    ],
)
def test_unusable_file(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    folders.make_transforms(tmp_path)
    folders.edit_json(tmp_path / "transforms.json", **change)
    with pytest.raises(DataError, match=word):
        CloseupDataParserConfig(data=tmp_path).setup().get_dataparser_outputs()
