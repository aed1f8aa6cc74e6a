"""Captures in nerfstudio's (and instant-ngp's) own format: a transforms.json and the files that it names."""

from __future__ import annotations

import itertools
import json
import math
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
from closeup_ns.data.images import image_folders, image_size
from closeup_ns.data.ply import read_ply
from closeup_ns.errors import DataError

SPLITS = ("train", "val", "test")
DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
ORIENTATION_METHODS = ("pca", "up", "vertical", "none")
MISSING_NAMED = 3
"""How many missing files an error names."""


def read_transforms(json_path: Path) -> Capture:
    """Read a transforms.json; its folder is the data folder that no path may leave.

    What a frame says about its camera wins over what the top of the file says. Without ``fl_x`` the focal length
    comes from ``camera_angle_x``, without ``w`` and ``h`` the size from the image, without ``cx`` the centre.

    Raises:
        DataError: malformed JSON, missing or outside files, unusable cameras.
    """
    root = json_path.parent
    meta = _load(json_path)
    entries = sorted(
        ((safe_path(root, _text(entry, "file_path", json_path), json_path), entry) for entry in meta["frames"]),
        key=lambda item: item[0],
    )
    paths = [path for path, _ in entries]
    for previous, path in itertools.pairwise(paths):
        if previous == path:
            raise DataError(f"{json_path} has two frames with the image {path}. Remove one of them.")
    image_sets = _image_sets(root, paths, json_path)
    factor, available = next(iter(image_sets.items()))
    frames = [
        _frame(entry, meta, path, (available[index], factor), json_path) for index, (path, entry) in enumerate(entries)
    ]
    for kind in ("mask", "depth"):
        given = sum(getattr(frame, kind) is not None for frame in frames)
        if given not in (0, len(frames)):
            raise DataError(f"{json_path}: {given} of {len(frames)} frames have a {kind} file. Give all or none one.")
    applied = _applied_transform(meta, root, json_path)
    crop = _number(meta, {}, "fisheye_crop_radius", json_path, math.nan)
    return Capture(
        kind=json_path.name,
        root=root,
        frames=frames,
        image_sets=image_sets,
        points=_points(meta, root, applied, json_path),
        applied_transform=applied,
        applied_scale=_number(meta, {}, "applied_scale", json_path, 1.0),
        orientation_method=_orientation(meta, json_path),
        split_names=_splits(meta, root, set(paths), json_path),
        full_paths=paths,
        fisheye_crop_radius=None if math.isnan(crop) else crop,
        default_split="fraction",
    )


def _load(json_path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(json_path.read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{json_path} cannot be read ({error}).") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{json_path} is not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "It may be cut off; copy it again or run ns-process-data."
        ) from error
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{json_path} has no list of 'frames'. Run ns-process-data to make one.")
    if not frames:
        raise DataError(f"{json_path} has no frames: there are no images to train on.")
    return meta


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


def _orientation(meta: dict[str, Any], json_path: Path) -> str | None:
    method = meta.get("orientation_override")
    if method is not None and method not in ORIENTATION_METHODS:
        raise DataError(
            f"{json_path}: orientation_override is {method!r}, not one of {', '.join(ORIENTATION_METHODS)}."
        )
    return method


def _frame(
    entry: dict[str, Any], meta: dict[str, Any], path: Path, available: tuple[Path, int], json_path: Path
) -> Frame:
    """One frame; ``available`` is an image of it that exists and its downscale factor."""
    where = f"{json_path}, frame {path.name}"
    try:
        matrix = np.array(entry["transform_matrix"], dtype=np.float64)
    except KeyError as error:
        raise DataError(f"{where}: there is no transform_matrix. Add it or remove the frame.") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: transform_matrix is not a matrix of numbers ({error}).") from error
    root = json_path.parent
    mask, depth = (
        safe_path(root, entry[key], json_path) if isinstance(entry.get(key), str) else None
        for key in ("mask_path", "depth_file_path")
    )
    for extra in (mask, depth):
        if extra is not None and not extra.is_file():
            raise DataError(f"{where}: the file {extra} does not exist. Restore it or remove the entry.")
    name = path.relative_to(root).as_posix()
    return Frame(name, check_pose(matrix, where), _intrinsics(entry, meta, available, where), mask, depth)


def _intrinsics(entry: dict[str, Any], meta: dict[str, Any], available: tuple[Path, int], where: str) -> Intrinsics:
    def number(key: str, default: float = math.nan) -> float:
        return _number(entry, meta, key, where, default)

    width, height = number("w"), number("h")
    if math.isnan(width) or math.isnan(height):
        path, factor = available
        width, height = (side * factor for side in image_size(path))
    fx, fy = number("fl_x"), number("fl_y")
    if math.isnan(fx) and not math.isnan(angle := number("camera_angle_x")):
        fx = width / 2 / math.tan(angle / 2)
    if math.isnan(fy):
        angle = number("camera_angle_y")
        fy = fx if math.isnan(angle) else height / 2 / math.tan(angle / 2)
    if math.isnan(fx):
        raise DataError(f"{where}: the focal length is missing (fl_x or camera_angle_x). Add it to the file.")
    return Intrinsics(
        round(width), round(height), fx, fy, number("cx", width / 2), number("cy", height / 2),
        _distortion(entry, meta, where), _camera_type(entry, meta, where),
    ).check(where)  # fmt: skip


def _distortion(entry: dict[str, Any], meta: dict[str, Any], where: str) -> tuple[float, ...]:
    """Lens distortion of one frame; the frame's own, as a whole, when it has any."""
    source = entry if any(key in entry for key in ("distortion_params", *DISTORTION_KEYS)) else meta
    if "distortion_params" in source:
        try:
            return tuple(float(value) for value in source["distortion_params"])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: distortion_params is not a list of numbers.") from error
    return tuple(_number(source, {}, key, where, 0.0) for key in DISTORTION_KEYS)


def _camera_type(entry: dict[str, Any], meta: dict[str, Any], where: str) -> CameraType:
    name = entry.get("camera_model", meta.get("camera_model", "OPENCV"))
    if not isinstance(name, str) or name not in CAMERA_MODEL_TO_TYPE:
        raise DataError(f"{where}: camera_model {name!r} is unknown; nerfstudio has {', '.join(CAMERA_MODEL_TO_TYPE)}.")
    return CAMERA_MODEL_TO_TYPE[name]


def _image_sets(root: Path, paths: Sequence[Path], json_path: Path) -> dict[int, list[Path]]:
    """The frames' images as they are named, and every images_N that has all of them under the same names."""
    sets: dict[int, list[Path]] = {}
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        sets[1] = list(paths)
    if len({path.name for path in paths}) == len(paths):
        for factor, folder in image_folders(root).items():
            smaller = [folder / path.name for path in paths]
            if factor > 1 and all(path.is_file() for path in smaller):
                sets[factor] = smaller
    if not sets:
        raise DataError(
            f"{json_path} has {len(paths)} frames, of which {len(missing)} have no image file, first "
            f"{', '.join(str(path) for path in missing[:MISSING_NAMED])}. Restore the images or remove their frames."
        )
    return sets


def _splits(meta: dict[str, Any], root: Path, known: set[Path], json_path: Path) -> dict[str, set[Path]]:
    """Split -> image files, for the lists train_filenames, val_filenames and test_filenames that the file has."""
    splits: dict[str, set[Path]] = {}
    for split in SPLITS:
        names = meta.get(f"{split}_filenames")
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{json_path}: {split}_filenames is not a list of file names.")
        members = {safe_path(root, name, json_path) for name in names}
        unknown = sorted(str(path) for path in members - known)
        if unknown:
            raise DataError(
                f"{json_path}: {len(unknown)} of {split}_filenames belong to no frame, first {unknown[0]}. "
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
    try:
        matrix = np.array(meta["applied_transform"], dtype=np.float64)[:3]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{json_path}: applied_transform is not a 3x4 matrix of numbers.") from error
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        raise DataError(f"{json_path}: applied_transform is not a 3x4 matrix of numbers.")
    return matrix


def _points(
    meta: dict[str, Any], root: Path, applied: npt.NDArray[np.float64] | None, json_path: Path
) -> PointCloud | None:
    """The sparse points in the file's world frame: from ply_file_path, else from the COLMAP model beside it."""
    if meta.get("ply_file_path"):
        cloud = read_ply(safe_path(root, _text(meta, "ply_file_path", json_path), json_path))
        return cloud if len(cloud.xyz) else None
    cloud = read_points(root / "colmap/sparse/0")
    if cloud is None:
        return None
    return cloud.transformed(COLMAP_TO_NERFSTUDIO if applied is None else applied)
