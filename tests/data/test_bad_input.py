"""Bad input, a table for each reader: what is wrong -> what the DataError says. Never another exception."""

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
from closeup_ns.data.dataset import CloseupDataset
from closeup_ns.errors import DataError
from tests.data import folders
from tests.integration import fuzz

Damage = Callable[[Path], object]
MAKERS = {"llff": folders.make_llff, "colmap": folders.make_colmap, "transforms": folders.make_transforms}
EYE = np.eye(4)


def load(path: Path, **options: Any) -> None:
    """Read everything, pixels included."""
    dataset = CloseupDataset(
        CloseupDataParserConfig(data=path, train_on_all=True, **options).setup().get_dataparser_outputs()
    )
    for index in range(len(dataset)):
        dataset.get_data(index, "uint8")


# ---- ways to damage a capture


def cut(name: str, keep: float) -> Damage:
    """Cut the file off after this share of its bytes."""
    return lambda path: (path / name).write_bytes(
        (path / name).read_bytes()[: int((path / name).stat().st_size * keep)]
    )


def write(name: str, content: bytes | str) -> Damage:
    return lambda path: (path / name).write_bytes(content.encode("latin-1") if isinstance(content, str) else content)


def append(name: str, content: str) -> Damage:
    return lambda path: (path / name).write_text((path / name).read_text() + content)


def remove(*patterns: str) -> Damage:
    def damage(path: Path) -> None:
        for found in [found for pattern in patterns for found in path.glob(pattern)]:
            shutil.rmtree(found) if found.is_dir() else found.unlink()

    return damage


def top(**changes: Any) -> Damage:
    """Change entries at the top of transforms.json."""
    return lambda path: folders.edit_json(path / "transforms.json", **changes)


def frame(**changes: Any) -> Damage:
    """Change entries of one frame of transforms.json; None removes one."""

    def damage(path: Path) -> None:
        meta = json.loads((path / "transforms.json").read_text())
        changed = meta["frames"][0] | changes
        meta["frames"][0] = {key: value for key, value in changed.items() if value is not None}
        (path / "transforms.json").write_text(json.dumps(meta))

    return damage


def poses(index: Any, values: Any) -> Damage:
    def damage(path: Path) -> None:
        rows = np.load(path / "poses_bounds.npy")
        rows[index] = values
        np.save(path / "poses_bounds.npy", rows)

    return damage


def save_poses(array: np.ndarray) -> Damage:
    return lambda path: np.save(path / "poses_bounds.npy", array, allow_pickle=True)


def image(name: str, pixels: np.ndarray) -> Damage:
    return lambda path: folders.save_image(path / name, pixels)


def every_image(change: Callable[[Path], object]) -> Damage:
    return lambda path: [change(found) for found in sorted((path / "images").iterdir())]


def noisy_jpeg(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".jpg"))
    path.unlink()


def turned_jpeg(path: Path) -> None:
    """A JPEG turned by 90 degrees that says so."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif)
    path.unlink()


def all_of(*damages: Damage) -> Damage:
    return lambda path: [damage(path) for damage in damages]


FOLDERS: list[tuple[str, dict[str, Any], Damage, dict[str, Any], list[str]]] = [
    ("transforms", {}, remove("*"), {}, ["transforms.json", "poses_bounds.npy", "sparse/0", "nothing", "ns-process"]),
    ("transforms", {}, lambda p: (remove("*")(p), (p / "transforms_train.json").touch()), {}, ["blender-data"]),
    *[(name, {}, remove("images*"), {}, ["images"]) for name in MAKERS],
    *[("llff", {"images_bin": True}, cut(f"sparse/0/{name}.bin", 0.5), {}, [f"{name}.bin, byte"])
      for name in ("cameras", "images", "points3D")],
    ("llff", {"n": 1}, remove("none"), {}, ["single image"]),
    *[(name, {}, every_image(folders.turn), {"downscale_factor": 1}, ["rotated by 90 degrees"]) for name in MAKERS],
    ("llff", {"factors": ()}, remove("images/*"), {}, ["neither images/ nor images_N/"]),
    ("llff", {}, write("images/IMG_0003.png", "none"), {}, ["IMG_0003.png cannot be read", "identify"]),
    ("llff", {}, remove("none"), {"downscale_factor": 0}, ["downscale_factor is 0"]),
    ("llff", {"factors": ()}, image("images/IMG_0002.png", np.zeros((30, 32), np.uint8)), {}, ["0002.png is 32x30"]),
    ("llff", {}, cut("images/IMG_0004.png", 0.5), {}, ["IMG_0004.png cannot be read", "cut off"]),
    ("llff", {"factors": (), "sparse": False}, all_of(every_image(noisy_jpeg), cut("images/IMG_0004.jpg", 0.5)), {},
     ["IMG_0004.jpg cannot be read", "cut off"]),
    ("colmap", {}, remove("images/IMG_0001.png"), {}, ["lacks 1 of the 6", "IMG_0001.png", "Did you mean IMG_000"]),
    ("colmap", {}, remove("none"), {"masks_path": Path("masks")}, ["IMG_0000.png has no mask"]),
    ("transforms", {}, write("images/frame_00002.png", b""), {}, ["frame_00002.png"]),
    ("transforms", {}, remove("images/*1.png", "images/*4.png"), {},
     ["6 frames, of which 2", "frame_00001.png", "frame_00004.png", "Did you mean frame_0000"]),
    ("transforms", {}, lambda p: Image.new("F", (64, 48)).save(p / "images/frame_00001.png", "TIFF"), {},
     ["frame_00001.png", "kind F", "-depth 8"]),
    ("transforms", {}, write("images/frame_00001.png", b"\0\0\0\x18ftypheic" + bytes(99)), {}, ["HEIC", "JPEG"]),
    ("transforms", {}, every_image(turned_jpeg), {}, ["rotated by 90 degrees", "mogrify -auto-orient"]),
    ("transforms", {"masks": True}, image("masks/frame_00002.png", np.full((20, 64), 255, np.uint8)), {},
     ["masks/frame_00002.png is 64x20", "64x48"]),
    ("transforms", {"masks": True}, remove("masks/*2.png"), {}, ["masks/frame_00002.png does not exist"]),
]  # fmt: skip

COLMAP: list[tuple[dict[str, Any], Damage, list[str]]] = [
    *[({}, cut(f"sparse/0/{name}.bin", keep), [f"{name}.bin, byte", "truncated"])
      for name in ("cameras", "images", "points3D") for keep in (0.0, 0.1, 0.95)],
    *[({"text": True}, append(f"sparse/0/{name}.txt", "7 this is no COLMAP line\n"), [f"{name}.txt"])
      for name in ("cameras", "images", "points3D")],
    ({"text": True}, write("sparse/0/cameras.txt", "1 FOV 64 48 57 57 32 24 0.9\n"), ["FOV", "image_undistorter"]),
    ({"text": True}, write("sparse/0/cameras.txt", "2 PINHOLE 64 48 57 57 32 24\n"), ["uses camera 1"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 PINHOLE 64 48 57 57 32\n"), ["3 parameters, PINHOLE has 4"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 PINHOLE 64 48 3e-307 57 32 24\n"), ["intrinsics"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 PINHOLE 64 48 nan 57 32 24\n"), ["intrinsics"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 PINHOLE 64 48 57 57 32 nan\n"), ["intrinsics"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 PINHOLE 64000000 48000000 57e6 57e6 0 0\n"), ["intrinsics"]),
    ({"text": True}, write("sparse/0/cameras.txt", "1 SIMPLE_RADIAL 64 48 57 32 24 -3\n"), ["folds the image"]),
    ({"text": True}, write("sparse/0/images.txt", "1 1 0 0 0 0 0 0 1 a.png\n2 1 0 0 0 0 0 0 1 b.png\n"),
     ["images.txt, line 2", "not the 2D observations"]),
    ({"text": True}, write("sparse/0/images.txt", "1 0 0 0 0 0 0 0 1 a.png\n\n"), ["no unit quaternion"]),
    ({"text": True}, write("sparse/0/images.txt", "1 1 0 0 0 nan 0 0 1 a.png\n\n"), ["NaN"]),
    ({"text": True}, write("sparse/0/images.txt", "# none\n"), ["registers no image"]),
    ({"text": True}, write("sparse/0/images.txt", f"1 1 0 0 0 0 0 0 1 {'a' * 300}.png\n\n"), ["no file can be called"]),
    ({"text": True}, write("sparse/0/images.txt", "1 1 0 0 0 0 0 0 1 ../../a.png\n\n"), ["outside of the data folder"]),
]  # fmt: skip

POSES: list[tuple[Damage, list[str]]] = [
    *[(save_poses(np.tile(np.r_[np.zeros(15), 1, 2], (n, 1))), [f"{n} poses", "images/ has 6"]) for n in (5, 7)],
    *[(save_poses(np.zeros(shape)), ["poses_bounds.npy"]) for shape in ((6, 15), (6, 3, 5), (17,), (0, 17))],
    (save_poses(np.array([{"pickled": 1}], dtype=object)), ["poses_bounds.npy cannot be read"]),
    (
        write("poses_bounds.npy", b"\x93NUMPY\x01\0\x76\0{'descr': '<f8, 'fortran_order': (" + bytes(90)),
        ["cannot be read"],
    ),
    (write("poses_bounds.npy", b""), ["poses_bounds.npy cannot be read"]),
    (poses((3, 7), np.nan), ["row 3", "NaN"]),
    (poses((3, 3), 1e20), ["row 3"]),
    (poses((2, slice(15, 17)), (5, 4)), ["row 2 has the depth bounds 5, 4"]),
    (poses((1, [0, 5, 10]), 0.5), ["row 1", "not a rotation"]),
    (poses((1, 14), 0), ["row 1", "intrinsics"]),
]

FRAMES: list[tuple[dict[str, Any], str]] = [
    ({"file_path": None}, "file_path"),
    ({"file_path": 3}, "file_path"),
    ({"file_path": "images/frame_00000.png"}, "two frames"),
    ({"file_path": "images\\Frame_00000.JPG"}, "two frames"),
    ({"file_path": "../../etc/photo.png"}, "outside of the data folder"),
    ({"file_path": "a" * 300}, "no file can be called"),
    ({"file_path": "\ud800"}, "no file can be called"),
    ({"mask_path": "a\0.png"}, "no file can be called"),
    ({"file_path": "/etc/photo.png"}, "outside of the data folder"),
    ({"mask_path": 3}, "mask_path"),
    ({"mask_path": "masks/none.png"}, "does not exist"),
    ({"mask_path": "images/frame_00000.png"}, "1 of 6 frames have a mask"),
    ({"transform_matrix": None}, "no transform_matrix"),
    ({"transform_matrix": [[1, 2], [3, 4]]}, "shape (2, 2)"),
    ({"transform_matrix": "eye"}, "4x4 numbers"),
    ({"transform_matrix": [[10**400] * 4] * 4}, "4x4 numbers"),
    ({"transform_matrix": np.full((4, 4), np.nan).tolist()}, "NaN"),
    ({"transform_matrix": (EYE * 2).tolist()}, "not a rotation"),
    ({"transform_matrix": (EYE * [-1, 1, 1, 1]).tolist()}, "not a rotation"),
    ({"fl_x": "wide"}, "'fl_x'"),
    ({"fl_x": True}, "'fl_x'"),
    ({"fl_x": -5}, "intrinsics"),
    ({"fl_y": 3e-307}, "intrinsics"),
    ({"cx": 1e9}, "intrinsics"),
    ({"w": 0}, "intrinsics"),
    ({"w": 1e9}, "intrinsics"),
    ({"w": 1e300}, "'w'"),
    ({"camera_model": "PERISCOPE"}, "PERISCOPE"),
    ({"camera_model": []}, "unknown"),
    ({"camera_model": "EQUIRECTANGULAR"}, "ns-process-data images --camera-type equirectangular"),
    ({"k4": 0.1}, "k4 is 0.1"),
    ({"k5": 0.1}, "k5 says something about the lens"),
    ({"ftheta_p1": 0.1}, "ftheta_p1 says something about the lens"),
    ({"is_fisheye": True}, "is_fisheye is true, but camera_model is OPENCV"),
    ({"k1": -1.5}, "folds the image"),
    ({"p1": 5.0}, "folds the image"),
    ({"distortion_params": [0.1, 0.0, 0.0, 0.0]}, "4 distortion parameters; PERSPECTIVE has 6"),
    ({"distortion_params": 3}, "distortion_params"),
    ({"distortion_params": [0.0, 0.0, float("nan"), 0.0, 0.0, 0.0]}, "intrinsics"),
]

TOP: list[tuple[Damage, str]] = [
    *[(write("transforms.json", content), "transforms.json")
      for content in ("[]", "{}", '{"frames": {}}', '{"frames": [1]}', '{"frames": []}', "\xff", "[" * 100_000)],
    (cut("transforms.json", 0.5), "transforms.json cannot be read (not valid JSON"),
    (top(fl_x=None, fl_y=None), "focal length"),
    (top(fl_x=None, fl_y=None, camera_angle_x=0), "focal length"),
    (top(applied_transform=[[1, 0], [0, 1]]), "applied_transform"),
    (top(applied_transform="none"), "applied_transform"),
    (top(applied_transform=np.zeros((3, 4)).tolist()), "flattens the world"),
    (top(applied_scale="big"), "applied_scale"),
    (top(applied_scale=0), "must be above 0"),
    (top(orientation_override="sideways"), "orientation_override"),
    (top(orientation_override=["up"]), "orientation_override"),
    (top(train_filenames="images/frame_00000.png"), "not a list"),
    (top(train_filenames=["../../a.png"]), "outside"),
    (top(train_filenames=[]), "no image to train on"),
    (top(test_filenames=["images/frame_000025.png"]), "belong to no frame"),
    (top(test_filenames=["images/frame_000033.png"]), "images/frame_00003.png?"),
    (top(ply_file_path="nowhere.ply"), "nowhere.ply does not exist"),
    (top(ply_file_path="../sparse_pc.ply"), "outside"),
    (top(ply_file_path=3), "ply_file_path"),
    (top(fisheye_crop_radius="wide"), "fisheye_crop_radius"),
]  # fmt: skip


CASES = [
    *FOLDERS,
    *[("colmap", options, damage, {}, expected) for options, damage, expected in COLMAP],
    *[("llff", {}, damage, {}, expected) for damage, expected in POSES],
    *[("transforms", {}, frame(**change), {}, ["transforms.json", expected]) for change, expected in FRAMES],
    *[("transforms", {}, damage, {}, [expected]) for damage, expected in TOP],
]


@pytest.mark.parametrize(("layout", "options", "damage", "config", "expected"), CASES)
def test_a_damaged_capture_is_refused_with_the_reason(
    layout: str, options: dict, damage: Damage, config: dict, expected: list[str], tmp_path: Path
) -> None:
    MAKERS[layout](tmp_path, **options)
    damage(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path, **config)
    assert all(part in str(caught.value) for part in expected), caught.value


@pytest.mark.parametrize("name", ["nowhere", "nowhere.json"])
def test_nothing_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / name)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> list[fuzz.Reader]:
    return fuzz.input_readers(tmp_path_factory.mktemp("pristine"))


@pytest.mark.parametrize("seed", range(40))
def test_a_changed_file_ends_in_a_data_error_or_in_a_possible_capture(seed: int, readers: list[fuzz.Reader]) -> None:
    assert [why for reader in readers if (why := fuzz.trial(reader, seed)[1])] == []
