"""COLMAP reconstructions: cameras, images and points (binary or text), and the captures made of them.

The binary readers are our own: nerfstudio's build a Python object per 2D observation, which takes minutes on a large
capture, and die with a bare ``struct.error`` on a truncated file. Text files and camera models go through nerfstudio's.
Format: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE
from nerfstudio.data.utils import colmap_parsing_utils
from nerfstudio.process_data.colmap_utils import parse_colmap_camera_params

from closeup_ns.data.capture import (
    COLMAP_TO_NERFSTUDIO,
    Capture,
    Frame,
    Intrinsics,
    PointCloud,
    check_pose,
    safe_path,
)
from closeup_ns.data.images import image_folders, list_images, match_by_name, match_by_order
from closeup_ns.errors import DataError

SPARSE_FOLDERS = ("sparse/0", "colmap/sparse/0", "sparse")
"""Where a reconstruction is looked for, below the data folder."""


@dataclass(frozen=True)
class ColmapImage:
    """A registered photograph: ``c2w`` is [4, 4], OpenGL axes, COLMAP's world frame."""

    name: str
    camera_id: int
    c2w: npt.NDArray[np.float64]


class _Cursor:
    """Reads a binary file front to back and knows, when it ends too early, which file that was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}). Run COLMAP's model export again.") from error

    def take(self, layout: str) -> tuple[Any, ...]:
        try:
            values = struct.unpack_from("<" + layout, self.data, self.offset)
        except struct.error as error:
            raise self.truncated() from error
        self.offset += struct.calcsize("<" + layout)
        return values

    def skip(self, size: int) -> None:
        self.offset += size
        if self.offset > len(self.data):
            raise self.truncated()

    def name(self) -> str:
        end = self.data.find(b"\x00", self.offset)
        if end < 0:
            raise self.truncated()
        raw, self.offset = self.data[self.offset : end], end + 1
        try:
            return raw.decode("utf8")
        except UnicodeDecodeError as error:
            raise self.damaged("an image name is not text") from error

    def truncated(self) -> DataError:
        return self.damaged(f"it is truncated, its {len(self.data)} bytes end before what it announces")

    def damaged(self, why: str) -> DataError:
        return DataError(f"{self.path} cannot be used: {why}. Copy it again or run COLMAP's model export again.")


def has_model(folder: Path) -> bool:
    """Whether ``folder`` holds cameras and images, binary or text."""
    return any((folder / f"cameras{s}").is_file() and (folder / f"images{s}").is_file() for s in (".bin", ".txt"))


def find_model(root: Path) -> Path | None:
    """The first folder below ``root`` that holds a COLMAP reconstruction."""
    return next((root / name for name in SPARSE_FOLDERS if has_model(root / name)), None)


def read_cameras(folder: Path) -> dict[int, Intrinsics]:
    """Camera id -> intrinsics, from cameras.bin or cameras.txt; empty when there is neither.

    Raises:
        DataError: truncated or damaged file, or a camera model that nerfstudio cannot use.
    """
    if (folder / "cameras.bin").is_file():
        path = folder / "cameras.bin"
        cameras = _cameras_binary(path)
    elif (folder / "cameras.txt").is_file():
        path = folder / "cameras.txt"
        cameras = _text(path, colmap_parsing_utils.read_cameras_text)
    else:
        return {}
    return {camera_id: _to_intrinsics(camera, path) for camera_id, camera in cameras.items()}


def read_images(folder: Path) -> list[ColmapImage]:
    """The registered photographs from images.bin or images.txt, sorted by name; empty when there is neither."""
    if (folder / "images.bin").is_file():
        path = folder / "images.bin"
        raw = _images_binary(path)
    elif (folder / "images.txt").is_file():
        path = folder / "images.txt"
        images = _text(path, colmap_parsing_utils.read_images_text).values()
        raw = [(image.name, image.camera_id, image.qvec, image.tvec) for image in images]
    else:
        return []
    result = []
    for name, camera_id, qvec, tvec in raw:
        w2c = np.eye(4)
        w2c[:3, :3] = colmap_parsing_utils.qvec2rotmat(qvec / max(float(np.linalg.norm(qvec)), 1e-12))
        w2c[:3, 3] = tvec
        if not np.isfinite(w2c).all():
            raise DataError(f"{path}: the pose of {name} holds NaN. Remove this image or run COLMAP again.")
        c2w = np.linalg.inv(w2c)
        c2w[:3, 1:3] *= -1  # OpenCV axes to OpenGL axes
        result.append(ColmapImage(name, camera_id, check_pose(c2w, f"{path}, image {name}")))
    return sorted(result, key=lambda image: image.name)


def read_points(folder: Path) -> PointCloud | None:
    """The sparse points in COLMAP's world frame from points3D.bin or points3D.txt; None when there are none."""
    if (folder / "points3D.bin").is_file():
        xyz, rgb = _points_binary(folder / "points3D.bin")
        source = "points3D.bin"
    elif (folder / "points3D.txt").is_file():
        points = _text(folder / "points3D.txt", colmap_parsing_utils.read_points3D_text).values()
        xyz = np.array([point.xyz for point in points], dtype=np.float64).reshape(-1, 3)
        rgb = np.array([point.rgb for point in points], dtype=np.uint8).reshape(-1, 3)
        source = "points3D.txt"
    else:
        return None
    cloud = PointCloud(xyz, rgb, source).finite()
    return cloud if len(cloud.xyz) else None


def read_colmap(root: Path, masks_path: Path | None = None) -> Capture:
    """Read a capture that is a COLMAP reconstruction with its images beside it.

    Args:
        root: holds sparse/0 (or colmap/sparse/0, or sparse) and images/ and/or images_N/. The small images are named
            like COLMAP's or, as LLFF ships them, stand in the same sorted order.
        masks_path: folder of masks relative to ``root``, named like the images with the suffix .png.

    Raises:
        DataError: missing, damaged or inconsistent files.
    """
    model = find_model(root)
    if model is None:
        raise DataError(f"{root} has no COLMAP model in {', '.join(SPARSE_FOLDERS)}.")
    cameras, images = read_cameras(model), read_images(model)
    if not images:
        raise DataError(f"{model} registers no image. COLMAP's reconstruction failed; run it again.")
    frames = []
    for image in images:
        if image.camera_id not in cameras:
            raise DataError(f"{model}: image {image.name} uses camera {image.camera_id}, which cameras.* lacks.")
        c2w = np.eye(4)
        c2w[:3] = COLMAP_TO_NERFSTUDIO @ image.c2w
        mask = find_mask(root, masks_path, image.name)
        frames.append(Frame(image.name, c2w, cameras[image.camera_id], mask=mask))
    names = [image.name for image in images]
    points = read_points(model)
    return Capture(
        kind="COLMAP",
        root=root,
        frames=frames,
        image_sets=_image_sets(root, names, model),
        points=points.transformed(COLMAP_TO_NERFSTUDIO) if points else None,
        applied_transform=COLMAP_TO_NERFSTUDIO,
        full_paths=[root / "images" / name for name in names],
    )


def find_mask(root: Path, masks_path: Path | None, name: str) -> Path | None:
    """The mask of the image ``name``: masks/a.png or masks/a.jpg.png for a.jpg. DataError when there is none."""
    if masks_path is None:
        return None
    folder = safe_path(root, masks_path, "masks_path")
    candidates = [folder / Path(name).with_suffix(".png"), folder / f"{name}.png", folder / name]
    mask = next((path for path in candidates if path.is_file()), None)
    if mask is None:
        raise DataError(f"The image {name} has no mask: looked for {', '.join(map(str, candidates))}.")
    return mask


def _image_sets(root: Path, names: list[str], model: Path) -> dict[int, list[Path]]:
    """Every complete set of the registered images below ``root``."""
    for name in names:
        safe_path(root / "images", name, model / "images.*")
    folders = image_folders(root)
    if not folders:
        raise DataError(f"{root} has a COLMAP model but no folder images/ or images_N/. Put the photographs there.")
    originals = [path.name for path in list_images(root / "images")] or names
    sets: dict[int, list[Path]] = {}
    for factor, folder in folders.items():
        paths = match_by_name(folder, names)
        if paths is None and factor != 1:
            paths = match_by_order(folder, names, originals)
        if paths is not None:
            sets[factor] = paths
    if not sets:
        folder = next(iter(folders.values()))
        missing = [name for name in names if not (folder / name).is_file()]
        raise DataError(
            f"{folder} lacks {len(missing)} of the {len(names)} images that {model} registers, "
            f"first {', '.join(missing[:3])}. Restore them, or remove them from the model."
        )
    return sets


def _text(path: Path, reader: Callable[[Path], dict[int, Any]]) -> dict[int, Any]:
    try:
        return reader(path)
    except (ValueError, IndexError, OSError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a COLMAP text file ({error}). Export the model again.") from error


def _cameras_binary(path: Path) -> dict[int, colmap_parsing_utils.Camera]:
    cursor = _Cursor(path)
    cameras: dict[int, colmap_parsing_utils.Camera] = {}
    for _ in range(cursor.take("Q")[0]):
        camera_id, model_id, width, height = cursor.take("iiQQ")
        if model_id not in colmap_parsing_utils.CAMERA_MODEL_IDS:
            raise cursor.damaged(f"camera {camera_id} has the unknown model number {model_id}")
        model = colmap_parsing_utils.CAMERA_MODEL_IDS[model_id]
        params = np.array(cursor.take(f"{model.num_params}d"))
        cameras[camera_id] = colmap_parsing_utils.Camera(camera_id, model.model_name, width, height, params)
    return cameras


def _to_intrinsics(camera: colmap_parsing_utils.Camera, path: Path) -> Intrinsics:
    try:
        params = parse_colmap_camera_params(camera)
    except (NotImplementedError, IndexError) as error:
        raise DataError(
            f"{path}: camera {camera.id} has the model {camera.model}, which nerfstudio cannot use. Undistort the "
            "capture with 'colmap image_undistorter' and train on its output."
        ) from error
    return Intrinsics(
        int(params["w"]), int(params["h"]), params["fl_x"], params["fl_y"], params["cx"], params["cy"],
        tuple(float(params.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")),
        CAMERA_MODEL_TO_TYPE[params["camera_model"]],
    ).check(f"{path}, camera {camera.id}")  # fmt: skip


def _images_binary(path: Path) -> list[tuple[str, int, npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    cursor = _Cursor(path)
    images = []
    for _ in range(cursor.take("Q")[0]):
        _, *pose, camera_id = cursor.take("i7di")
        name = cursor.name()
        cursor.skip(24 * cursor.take("Q")[0])  # x, y, point id of every 2D observation
        images.append((name, camera_id, np.array(pose[:4]), np.array(pose[4:])))
    return images


def _points_binary(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    cursor = _Cursor(path)
    xyz, rgb = [], []
    for _ in range(cursor.take("Q")[0]):
        _, x, y, z, red, green, blue, _, track_length = cursor.take("Q3d3BdQ")
        cursor.skip(8 * track_length)  # image id, observation index
        xyz.append((x, y, z))
        rgb.append((red, green, blue))
    return np.array(xyz, dtype=np.float64).reshape(-1, 3), np.array(rgb, dtype=np.uint8).reshape(-1, 3)
