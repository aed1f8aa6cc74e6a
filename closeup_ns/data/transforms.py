"""Captures in nerfstudio's (and instant-ngp's) own format: a transforms.json and the files that it names."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE, CameraType

from closeup_ns.data.capture import LARGEST_NUMBER, Capture, Frame, Intrinsics, PointCloud, check_pose, safe_path
from closeup_ns.data.colmap import read_points
from closeup_ns.data.images import image_folders, image_size, list_images, match_by_name
from closeup_ns.data.names import FileLookup, did_you_mean
from closeup_ns.data.ply import read_ply
from closeup_ns.errors import DataError
from closeup_ns.reading import reading

SPLITS = ("train", "val", "test")
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
ORIENTATION_METHODS = ("pca", "up", "vertical", "none")
ABOUT_LENS = re.compile(
    r"[kpsb]\d+|ftheta_p\d+|distortion\w*|omega|(is_)?(fisheye|latlong|equirectangular)\w*|rolling_shutter", re.I
)
"""Keys that describe a lens."""
LENS_KEYS = ("distortion_params", *DISTORTION_KEYS)
"""Of a frame that has one of them, the file's own do not count."""
KNOWN_LENS_KEYS = {*LENS_KEYS, "fisheye_crop_radius", "is_fisheye"}
COLMAP_FOLDER = "colmap/sparse/0"
"""Where ns-process-data leaves the reconstruction."""


def read_transforms(json_path: Path) -> Capture:
    """Read a transforms.json; its folder is the data folder that no path may leave.

    What a frame says about its camera wins over what the top of the file says. Without ``fl_x`` the focal length
    comes from ``camera_angle_x``, without ``w`` and ``h`` the size from the image, without ``cx`` the centre.
    """
    with reading(json_path, "Correct it, or run ns-process-data again."):
        return _read(json_path, read_frames(json_path))


class _Folder:
    """The folder of a transforms.json, in which the files that it names are found also where written differently."""

    def __init__(self, json_path: Path) -> None:
        self.json_path, self.root, self.lookup = json_path, json_path.parent, FileLookup()

    def file(self, name: object, key: str, where: str = "") -> Path:
        """The file called ``name`` by the entry ``key``; else the path where it should be."""
        where = where or str(self.json_path)
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: a frame has no {key!r}. Add it or remove the frame.")
        path = safe_path(self.root, name, where)
        return self.lookup.find(self.root, os.path.relpath(path, self.root)) or path


def _read(json_path: Path, meta: dict[str, Any]) -> Capture:
    folder = _Folder(json_path)
    named = [(folder.file(entry.get("file_path"), "file_path"), entry) for entry in meta["frames"]]
    named.sort(key=lambda item: item[0])
    paths = [path for path, _ in named]
    names = [path.relative_to(folder.root).as_posix().split("/", 1)[-1] for path in paths]
    for previous, path in itertools.pairwise(paths):
        if previous == path:
            raise DataError(f"{json_path} has two frames with the image {path}. Remove one of them.")
    image_sets = _image_sets(folder.root, paths, names, json_path)
    factor, available = next(iter(image_sets.items()))
    frames = [_frame(entry, meta, path, (image, factor), folder) for image, (path, entry) in zip(available, named)]
    given = sum(frame.mask is not None for frame in frames)
    if given not in (0, len(frames)):
        raise DataError(f"{json_path}: {given} of {len(frames)} frames have a mask file. Give all or none one.")
    applied = _applied_transform(meta, folder)
    orientation = meta.get("orientation_override")
    if orientation not in (None, *ORIENTATION_METHODS):
        raise DataError(
            f"{json_path}: orientation_override is {orientation!r}, not one of {', '.join(ORIENTATION_METHODS)}."
        )
    scale = _number(meta, "applied_scale", json_path, 1.0)
    if not scale > 1 / LARGEST_NUMBER:
        raise DataError(f"{json_path}: 'applied_scale' is {scale!r}; it must be above 0. Correct it or export again.")
    crop = _number(meta, "fisheye_crop_radius", json_path, math.nan)
    return Capture(
        kind=json_path.name,
        root=folder.root,
        frames=frames,
        image_sets=image_sets,
        names=names,
        points=_points(meta, applied, folder),
        applied_transform=applied,
        applied_scale=scale,
        orientation_method=orientation,
        splits=_splits(meta, paths, folder),
        fisheye_crop_radius=None if math.isnan(crop) else crop,
        default_split="fraction",
    )


def _number(said: dict[str, Any], key: str, where: Path | str, default: float) -> float:
    """What is said under ``key``; ``default`` (NaN to mark the absence) where nothing is."""
    value = said.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST_NUMBER:
        raise DataError(f"{where}: {key!r} is {value!r}, not a finite number. Correct it or export the cameras again.")
    return float(value)


def _frame(
    entry: dict[str, Any], meta: dict[str, Any], path: Path, available: tuple[Path, int], folder: _Folder
) -> Frame:
    """One frame; ``available`` is an image of it that exists and its downscale factor."""
    where = f"{folder.json_path}, frame {path.name}"
    mask = folder.file(entry["mask_path"], "mask_path", where) if entry.get("mask_path") else None
    if mask is not None and not mask.is_file():
        raise DataError(f"{where}: the mask {mask} does not exist. Restore it or remove the entry.")
    lens = read_intrinsics(entry, meta, available, where)
    return Frame(read_pose(entry, where), lens, mask)


def read_pose(entry: dict[str, Any], where: str) -> npt.NDArray[np.float64]:
    """``transform_matrix`` of a frame: camera-to-world [4, 4], OpenGL axes. DataError unless it is rigid."""
    if "transform_matrix" not in entry:
        raise DataError(f"{where}: there is no transform_matrix. Add it or remove the frame.")
    with reading(f"{where}: transform_matrix", "It must be 4x4 numbers: export the cameras again."):
        matrix = np.array(entry["transform_matrix"], dtype=np.float64)
    return check_pose(matrix, where)


def read_intrinsics(
    entry: dict[str, Any], meta: dict[str, Any], available: tuple[Path, int] | None, where: str
) -> Intrinsics:
    """The camera of a frame, from what it says itself, else the top of its file (``meta``).

    Args:
        available: an image of the frame and its downscale factor, for the size where neither says it; None: it must.

    Raises:
        DataError: something is missing or impossible, or about a lens and not understood.
    """

    own_lens = any(key in entry for key in LENS_KEYS)
    said = {key: value for key, value in meta.items() if not (own_lens and key in LENS_KEYS)} | entry

    def number(key: str, default: float = math.nan) -> float:
        return _number(said, key, where, default)

    def focal_of(angle: str, side: float) -> float:
        radians = number(angle)
        return side / 2 / math.tan(radians / 2) if 0 < radians < math.pi else math.nan

    width, height = number("w"), number("h")
    if math.isnan(width) or math.isnan(height):
        if available is None:
            raise DataError(f"{where}: the size is missing (w and h). Add it to the file.")
        path, factor = available
        width, height = (side * factor for side in image_size(path))
    fx, fy = number("fl_x"), number("fl_y")
    fx = focal_of("camera_angle_x", width) if math.isnan(fx) else fx
    if math.isnan(fy):
        fy = fx if math.isnan(number("camera_angle_y")) else focal_of("camera_angle_y", height)
    if math.isnan(fx):
        raise DataError(
            f"{where}: the focal length is missing (fl_x, or camera_angle_x in radians). Add it to the file."
        )
    return Intrinsics(
        round(width), round(height), fx, fy, number("cx", width / 2), number("cy", height / 2),
        _distortion(said, where), _camera_type(said, where),
    ).check(where)  # fmt: skip


def _distortion(said: dict[str, Any], where: str) -> tuple[float, ...]:
    """Lens distortion of one frame."""
    about_lens = {key: value for key, value in said.items() if ABOUT_LENS.fullmatch(key)}
    unknown = [key for key, value in about_lens.items() if key not in KNOWN_LENS_KEYS and np.any(value)]
    if unknown:
        raise DataError(
            f"{where}: {', '.join(unknown)} says something about the lens that is not understood here. Undistort the "
            "capture with 'colmap image_undistorter', or remove the entry if it is not about the lens."
        )
    if "distortion_params" in said:
        with reading(f"{where}: distortion_params", "It must be a list of numbers."):
            return tuple(float(value) for value in said["distortion_params"])
    return tuple(_number(said, key, where, 0.0) for key in DISTORTION_KEYS)


def _camera_type(said: dict[str, Any], where: str) -> CameraType:
    """What ``camera_model`` says, and instant-ngp's ``is_fisheye``, which means OPENCV_FISHEYE."""
    fisheye = bool(said.get("is_fisheye", False))
    name = said.get("camera_model", "OPENCV_FISHEYE" if fisheye else "OPENCV")
    if not isinstance(name, str) or name not in CAMERA_MODEL_TO_TYPE:
        raise DataError(f"{where}: camera_model {name!r} is unknown; nerfstudio has {', '.join(CAMERA_MODEL_TO_TYPE)}.")
    if fisheye and CAMERA_MODEL_TO_TYPE[name] is CameraType.PERSPECTIVE:
        raise DataError(f"{where}: is_fisheye is true, but camera_model is {name}. Remove the one that is wrong.")
    return CAMERA_MODEL_TO_TYPE[name]


def _image_sets(root: Path, paths: Sequence[Path], names: Sequence[str], json_path: Path) -> dict[int, list[Path]]:
    """The frames' images as they are named, and every images_N that has all of them.

    By ``names``, or without the folders of a rig, which nerfstudio drops.
    """
    sets: dict[int, list[Path]] = {}
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        sets[1] = list(paths)
    for factor, folder in image_folders(root).items():
        smaller = match_by_name(folder, names) or match_by_name(folder, [path.name for path in paths])
        if factor > 1 and smaller:
            sets[factor] = smaller
    if not sets:
        hint = did_you_mean(missing[0].name, [path.name for path in list_images(missing[0].parent)])
        raise DataError(
            f"{json_path} has {len(paths)} frames, of which {len(missing)} have no image file, first "
            f"{', '.join(str(path) for path in missing[:3])}.{hint} Restore them or remove their frames."
        )
    return sets


def _splits(meta: dict[str, Any], images: list[Path], folder: _Folder) -> dict[str, set[int]]:
    """Split -> positions in ``images``, for each of the lists train_, val_ and test_filenames that the file has."""
    splits: dict[str, set[int]] = {}
    for split in SPLITS:
        names = meta.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{folder.json_path}: {split}_filenames is not a list of file names.")
        members = {folder.file(name, f"{split}_filenames") for name in names}
        unknown = sorted(str(path) for path in members.difference(images))
        if unknown:
            hint = did_you_mean(unknown[0], [str(path) for path in images])
            raise DataError(
                f"{folder.json_path}: {len(unknown)} of {split}_filenames belong to no frame, first {unknown[0]}.{hint}"
                " Remove them from the list or add their frames."
            )
        splits[split] = {index for index, path in enumerate(images) if path in members}
    return splits


def _applied_transform(meta: dict[str, Any], folder: _Folder) -> npt.NDArray[np.float64]:
    """[4, 4] from the original world to that of the file, as nerfstudio's own parser understands it."""
    if "applied_transform" not in meta:
        # Where the reconstruction is there: what ns-process-data applied before it began to write the field down.
        old = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
        return old if (folder.root / COLMAP_FOLDER).exists() else np.eye(4)
    with reading(f"{folder.json_path}: applied_transform", "It must be 3x4 numbers: run ns-process-data again."):
        matrix = np.vstack([np.array(meta["applied_transform"], dtype=np.float64)[:3], [0, 0, 0, 1]])
        if not (np.abs(matrix) < LARGEST_NUMBER).all() or not abs(np.linalg.det(matrix)) > 1 / LARGEST_NUMBER:
            raise ValueError("it flattens the world, or holds numbers that are not finite")
    return matrix


def _points(meta: dict[str, Any], applied: npt.NDArray[np.float64], folder: _Folder) -> PointCloud | None:
    """The sparse points in the file's world frame: from ply_file_path, else from the COLMAP model beside it."""
    if meta.get("ply_file_path"):
        cloud = read_ply(folder.file(meta["ply_file_path"], "ply_file_path"))
        return cloud if len(cloud.xyz) else None
    return read_points(folder.root / COLMAP_FOLDER, applied)


def read_frames(path: Path) -> dict[str, Any]:
    """What a JSON file with a list of "frames" holds, as transforms.json and lists of cameras are.

    Raises:
        DataError: it is missing, no JSON, or has no such list or an empty one.
    """
    with reading(path, "It may be cut off: copy it again, or run ns-process-data."):
        meta = json.loads(path.read_bytes())  # from bytes: byte order marks are obeyed
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path} has no list of 'frames'. Run ns-process-data to make one.")
    if not frames:
        raise DataError(f"{path} has no frames: there are no images to train on or to render. Export it again.")
    return meta
