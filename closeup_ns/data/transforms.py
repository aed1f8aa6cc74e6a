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

from closeup_ns.data.capture import (
    COLMAP_TO_NERFSTUDIO,
    LARGEST_NUMBER,
    Capture,
    Frame,
    Intrinsics,
    PointCloud,
    check_pose,
    safe_path,
)
from closeup_ns.data.colmap import read_points
from closeup_ns.data.images import image_folders, image_size, list_images, match_by_name
from closeup_ns.data.names import FileLookup, did_you_mean
from closeup_ns.data.ply import read_ply
from closeup_ns.errors import DataError
from closeup_ns.reading import reading

SPLITS = ("train", "val", "test")
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
ORIENTATION_METHODS = ("pca", "up", "vertical", "none")
LENS_KEY = re.compile(
    r"[kpsb]\d+|ftheta_p\d+|distortion\w*|omega|(is_)?(fisheye|latlong|equirectangular)\w*|rolling_shutter", re.I
)
"""Keys that describe a lens."""
KNOWN_LENS_KEYS = {*DISTORTION_KEYS, "distortion_params", "fisheye_crop_radius", "is_fisheye"}
MISSING_NAMED = 3
"""Missing files that an error names."""


def read_transforms(json_path: Path) -> Capture:
    """Read a transforms.json; its folder is the data folder that no path may leave.

    What a frame says about its camera wins over what the top of the file says. Without ``fl_x`` the focal length
    comes from ``camera_angle_x``, without ``w`` and ``h`` the size from the image, without ``cx`` the centre.

    Raises:
        DataError: malformed JSON, missing or outside files, unusable cameras.
    """
    with reading(json_path, "Correct it, or run ns-process-data again."):
        return _read(json_path, read_frames(json_path))


def _read(json_path: Path, meta: dict[str, Any]) -> Capture:
    root, lookup = json_path.parent, FileLookup()
    entries = sorted(
        ((_file(root, _text(entry, "file_path", json_path), json_path, lookup), entry) for entry in meta["frames"]),
        key=lambda item: item[0],
    )
    paths = [path for path, _ in entries]
    for previous, path in itertools.pairwise(paths):
        if previous == path:
            raise DataError(f"{json_path} has two frames with the image {path}. Remove one of them.")
    image_sets = _image_sets(root, paths, json_path)
    factor, available = next(iter(image_sets.items()))
    frames = [
        _frame(entry, meta, path, (available[index], factor), json_path, lookup)
        for index, (path, entry) in enumerate(entries)
    ]
    given = sum(frame.mask is not None for frame in frames)
    if given not in (0, len(frames)):
        raise DataError(f"{json_path}: {given} of {len(frames)} frames have a mask file. Give all or none one.")
    applied = _applied_transform(meta, root, json_path)
    crop = _number(meta, {}, "fisheye_crop_radius", json_path, math.nan)
    return Capture(
        kind=json_path.name,
        root=root,
        frames=frames,
        image_sets=image_sets,
        points=_points(meta, root, applied, json_path, lookup),
        applied_transform=applied,
        applied_scale=_positive(meta, "applied_scale", json_path),
        orientation_method=_orientation(meta, json_path),
        split_names=_splits(meta, root, set(paths), json_path, lookup),
        full_paths=paths,
        fisheye_crop_radius=None if math.isnan(crop) else crop,
        default_split="fraction",
    )


def _file(root: Path, name: str, source: Path | str, lookup: FileLookup) -> Path:
    """The file that an entry names, found also where it is written differently; else the path that it names."""
    path = safe_path(root, name, source)
    return lookup.find(root, os.path.relpath(path, root)) or path


def _text(entry: dict[str, Any], key: str, where: Path | str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: a frame has no {key!r}. Add it or remove the frame.")
    return value


def _number(frame: dict[str, Any], meta: dict[str, Any], key: str, where: Path | str, default: float) -> float:
    """What the frame, else the file says under ``key``; ``default`` (NaN to mark the absence) where neither does."""
    value = frame.get(key, meta.get(key))
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < LARGEST_NUMBER:
        raise DataError(f"{where}: {key!r} is {value!r}, not a finite number. Correct it or export the cameras again.")
    return float(value)


def _positive(meta: dict[str, Any], key: str, json_path: Path) -> float:
    value = _number(meta, {}, key, json_path, 1.0)
    if not value > 1 / LARGEST_NUMBER:
        raise DataError(f"{json_path}: {key!r} is {value!r}; it must be above 0. Correct it or export again.")
    return value


def _orientation(meta: dict[str, Any], json_path: Path) -> str | None:
    method = meta.get("orientation_override")
    if method is not None and method not in ORIENTATION_METHODS:
        raise DataError(
            f"{json_path}: orientation_override is {method!r}, not one of {', '.join(ORIENTATION_METHODS)}."
        )
    return method


def _frame(
    entry: dict[str, Any],
    meta: dict[str, Any],
    path: Path,
    available: tuple[Path, int],
    json_path: Path,
    lookup: FileLookup,
) -> Frame:
    """One frame; ``available`` is an image of it that exists and its downscale factor."""
    where = f"{json_path}, frame {path.name}"
    root = json_path.parent
    mask = _file(root, _text(entry, "mask_path", where), where, lookup) if entry.get("mask_path") else None
    if mask is not None and not mask.is_file():
        raise DataError(f"{where}: the mask {mask} does not exist. Restore it or remove the entry.")
    lens = read_intrinsics(entry, meta, available, where)
    return Frame(path.relative_to(root).as_posix(), read_pose(entry, where), lens, mask)


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

    def number(key: str, default: float = math.nan) -> float:
        return _number(entry, meta, key, where, default)

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
        _distortion(entry, meta, where), _camera_type(entry, meta, where),
    ).check(where)  # fmt: skip


def _distortion(entry: dict[str, Any], meta: dict[str, Any], where: str) -> tuple[float, ...]:
    """Lens distortion of one frame; the frame's own, as a whole, when it has any."""
    source = entry if any(key in entry for key in ("distortion_params", *DISTORTION_KEYS)) else meta
    about_lens = {key: value for key, value in {**meta, **entry}.items() if LENS_KEY.fullmatch(key)}
    unknown = [key for key, value in about_lens.items() if key not in KNOWN_LENS_KEYS and np.any(value)]
    if unknown:
        raise DataError(
            f"{where}: {', '.join(unknown)} says something about the lens that is not understood here. Undistort the "
            "capture with 'colmap image_undistorter', or remove the entry if it is not about the lens."
        )
    if "distortion_params" in source:
        with reading(f"{where}: distortion_params", "It must be a list of numbers."):
            return tuple(float(value) for value in source["distortion_params"])
    return tuple(_number(source, {}, key, where, 0.0) for key in DISTORTION_KEYS)


def _camera_type(entry: dict[str, Any], meta: dict[str, Any], where: str) -> CameraType:
    """What ``camera_model`` says, and instant-ngp's ``is_fisheye``, which means OPENCV_FISHEYE."""
    fisheye = bool(entry.get("is_fisheye", meta.get("is_fisheye", False)))
    name = entry.get("camera_model", meta.get("camera_model", "OPENCV_FISHEYE" if fisheye else "OPENCV"))
    if not isinstance(name, str) or name not in CAMERA_MODEL_TO_TYPE:
        raise DataError(f"{where}: camera_model {name!r} is unknown; nerfstudio has {', '.join(CAMERA_MODEL_TO_TYPE)}.")
    if fisheye and CAMERA_MODEL_TO_TYPE[name] is CameraType.PERSPECTIVE:
        raise DataError(f"{where}: is_fisheye is true, but camera_model is {name}. Remove the one that is wrong.")
    return CAMERA_MODEL_TO_TYPE[name]


def _image_sets(root: Path, paths: Sequence[Path], json_path: Path) -> dict[int, list[Path]]:
    """The frames' images as they are named, and every images_N that has all of them under the same names."""
    sets: dict[int, list[Path]] = {}
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        sets[1] = list(paths)
    if len({path.name for path in paths}) == len(paths):
        for factor, folder in image_folders(root).items():
            smaller = match_by_name(folder, [path.name for path in paths]) if factor > 1 else None
            if smaller is not None:
                sets[factor] = smaller
    if not sets:
        hint = did_you_mean(missing[0].name, [path.name for path in list_images(missing[0].parent)])
        raise DataError(
            f"{json_path} has {len(paths)} frames, of which {len(missing)} have no image file, first "
            f"{', '.join(str(path) for path in missing[:MISSING_NAMED])}.{hint} Restore them or remove their frames."
        )
    return sets


def _splits(
    meta: dict[str, Any], root: Path, images: set[Path], json_path: Path, lookup: FileLookup
) -> dict[str, set[Path]]:
    """Split -> image files, for the lists train_filenames, val_filenames and test_filenames that the file has."""
    splits: dict[str, set[Path]] = {}
    for split in SPLITS:
        names = meta.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{json_path}: {split}_filenames is not a list of file names.")
        members = {_file(root, name, json_path, lookup) for name in names}
        unknown = sorted(str(path) for path in members - images)
        if unknown:
            hint = did_you_mean(unknown[0], [str(path) for path in images])
            raise DataError(
                f"{json_path}: {len(unknown)} of {split}_filenames belong to no frame, first {unknown[0]}.{hint} "
                "Remove them from the list or add their frames."
            )
        splits[split] = members
    return splits


def _applied_transform(meta: dict[str, Any], root: Path, json_path: Path) -> npt.NDArray[np.float64] | None:
    """[3, 4] from the original world to that of the file, as nerfstudio's own parser understands it."""
    if "applied_transform" not in meta:
        if not (root / "colmap/sparse/0").exists():
            return None
        # What ns-process-data applied before it began to write the field down.
        return np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]])
    with reading(f"{json_path}: applied_transform", "It must be 3x4 numbers: run ns-process-data again."):
        matrix = np.array(meta["applied_transform"], dtype=np.float64)[:3]
        if matrix.shape != (3, 4) or not (np.abs(matrix) < LARGEST_NUMBER).all():
            raise ValueError(f"shape {matrix.shape}, or numbers that are not finite")
        if not abs(np.linalg.det(matrix[:, :3])) > 1 / LARGEST_NUMBER:
            raise ValueError("it flattens the world")
    return matrix


def _points(
    meta: dict[str, Any],
    root: Path,
    applied: npt.NDArray[np.float64] | None,
    json_path: Path,
    lookup: FileLookup,
) -> PointCloud | None:
    """The sparse points in the file's world frame: from ply_file_path, else from the COLMAP model beside it."""
    if meta.get("ply_file_path"):
        cloud = read_ply(_file(root, _text(meta, "ply_file_path", json_path), json_path, lookup))
        return cloud if len(cloud.xyz) else None
    cloud = read_points(root / "colmap/sparse/0")
    if cloud is None:
        return None
    return cloud.transformed(COLMAP_TO_NERFSTUDIO if applied is None else applied)


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
