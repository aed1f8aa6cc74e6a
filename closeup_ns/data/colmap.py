"""COLMAP reconstructions: cameras, images and points (binary or text), and the captures made of them.

The readers are our own: nerfstudio's build a Python object per 2D observation, which takes minutes on a large capture,
cut image names at blanks, and die with a bare ``struct.error`` on a truncated file.
Format: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nerfstudio.cameras.cameras import CAMERA_MODEL_TO_TYPE
from nerfstudio.data.utils.colmap_parsing_utils import CAMERA_MODEL_IDS, CAMERA_MODEL_NAMES, Camera, qvec2rotmat
from nerfstudio.process_data.colmap_utils import parse_colmap_camera_params

from closeup_ns.data.capture import COLMAP_TO_NERFSTUDIO, Capture, Frame, Intrinsics, PointCloud, check_pose, safe_path
from closeup_ns.data.images import complete_sets, image_folders, list_images
from closeup_ns.data.names import FileLookup, did_you_mean
from closeup_ns.errors import DataError
from closeup_ns.reading import reading

MODEL_FOLDERS = ("sparse", "colmap/sparse")
"""Where reconstructions are looked for below the data folder: in these, and in the folders 0, 1, ... in them."""
EXPORT_AGAIN = "Copy it again or run COLMAP's model export again."


@dataclass(frozen=True)
class ColmapImage:
    """A registered photograph: ``c2w`` is [4, 4], OpenGL axes, COLMAP's world frame."""

    name: str
    camera_id: int
    c2w: npt.NDArray[np.float64]


class _Bytes:
    """Reads a binary file front to back; prints as the file and the place that was reached."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0
        self.data = path.read_bytes()

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset} of {len(self.data)}"

    def take(self, layout: str) -> tuple[Any, ...]:
        start = self.offset
        self.skip(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self.data, start)

    def skip(self, size: int) -> None:
        if self.offset + size > len(self.data):
            raise ValueError("it is truncated, it ends before what it announces")
        self.offset += size

    def name(self) -> str:
        start, end = self.offset, self.data.find(b"\0", self.offset)
        self.skip((end if end >= 0 else len(self.data)) + 1 - start)
        return self.data[start:end].decode("utf8")


class _Lines:
    """Reads a text file line by line; prints as the file and the line that was reached."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self.lines = path.read_text(encoding="utf-8-sig").splitlines()

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"

    def next(self) -> str:
        self.number += 1
        return self.lines[self.number - 1]

    def rows(self, values: int) -> Iterator[list[str]]:
        """The lines that are no comments, each cut into at most so many words."""
        while self.number < len(self.lines):
            line = self.next().strip()
            if line and not line.startswith("#"):
                yield line.split(maxsplit=values - 1)


def find_models(root: Path, parts: Sequence[str] = ("cameras", "images")) -> list[Path]:
    """The folders below ``root`` that hold these parts of a COLMAP reconstruction, binary or text."""
    parents = [root / name for name in MODEL_FOLDERS]
    inner = [folder for parent in parents if parent.is_dir() for folder in sorted(parent.iterdir())]
    return [
        folder
        for folder in (*inner, *parents)
        if any(all((folder / f"{part}{suffix}").is_file() for part in parts) for suffix in (".bin", ".txt"))
    ]


def largest_model(models: list[Path], notes: list[str]) -> tuple[Path, list[ColmapImage]]:
    """The reconstruction with most photographs and those photographs; the others are named in ``notes``.

    COLMAP writes one folder for each part of a capture that it could not connect with the rest.
    """
    images = {model: read_images(model) for model in models}
    best = max(models, key=lambda model: len(images[model]))
    if len(models) > 1:
        others = ", ".join(f"{m} ({len(images[m])} images)" for m in models if m is not best)
        notes.append(f"the reconstruction in {best} has most images, {len(images[best])}, and is used; not {others}")
    return best, images[best]


def read_cameras(folder: Path) -> dict[int, Intrinsics]:
    """Camera id -> intrinsics, from cameras.bin or cameras.txt; empty when there is neither.

    Raises:
        DataError: truncated or damaged file, or a camera model that nerfstudio cannot use.
    """
    source = _open(folder / "cameras")
    if source is None:
        return {}
    with reading(source, EXPORT_AGAIN):
        cameras = list(_cameras_binary(source) if isinstance(source, _Bytes) else _cameras_text(source))
        return {camera.id: _to_intrinsics(camera, f"{source.path}, camera {camera.id}") for camera in cameras}


def read_images(folder: Path) -> list[ColmapImage]:
    """The registered photographs from images.bin or images.txt, sorted by name; empty when there is neither."""
    source = _open(folder / "images")
    if source is None:
        return []
    images = []
    with reading(source, EXPORT_AGAIN):
        for name, camera_id, pose in _images_binary(source) if isinstance(source, _Bytes) else _images_text(source):
            w2c = np.eye(4)
            length = np.linalg.norm(pose[:4])
            if not 0.5 < length < 2:
                raise ValueError(f"the rotation of {name} is no unit quaternion but {pose[:4]}")
            w2c[:3, :3], w2c[:3, 3] = qvec2rotmat(pose[:4] / length), pose[4:]
            c2w = np.linalg.inv(w2c)
            c2w[:3, 1:3] *= -1  # OpenCV axes to OpenGL axes
            images.append(ColmapImage(name, camera_id, check_pose(c2w, f"{source}, image {name}")))
    return sorted(images, key=lambda image: image.name)


def read_points(folder: Path, transform: npt.NDArray[np.float64] = COLMAP_TO_NERFSTUDIO) -> PointCloud | None:
    """The sparse points from points3D.bin or points3D.txt, out of COLMAP's world; None when there are none."""
    source = _open(folder / "points3D")
    if source is None:
        return None
    with reading(source, EXPORT_AGAIN):
        rows = list(_points_binary(source) if isinstance(source, _Bytes) else _points_text(source))
        table = np.array(rows, dtype=np.float64).reshape(-1, 6)
        cloud = PointCloud(table[:, :3], table[:, 3:].clip(0, 255).astype(np.uint8), source.path.name).finite()
    return cloud.transformed(transform) if len(cloud.xyz) else None


def read_colmap(root: Path, masks_path: Path | None) -> Capture:
    """Read a capture that is a COLMAP reconstruction with its images beside it.

    Args:
        root: one in which `find_models` finds a model, and images/ and/or images_N/. The small images are named
            like COLMAP's or, as LLFF ships them, stand in the same sorted order.
        masks_path: folder of masks relative to ``root``, named like the images with the suffix .png.
    """
    notes: list[str] = []
    model, images = largest_model(find_models(root), notes)
    if not images:
        raise DataError(f"{model} registers no image. COLMAP's reconstruction failed; run it again.")
    cameras = read_cameras(model)
    names = [image.name for image in images]
    masks = find_masks(root, masks_path, names)
    frames = []
    for image, mask in zip(images, masks, strict=True):
        if image.camera_id not in cameras:
            raise DataError(
                f"{model}: image {image.name} uses camera {image.camera_id}, which cameras.* lacks. {EXPORT_AGAIN}"
            )
        frames.append(Frame(COLMAP_TO_NERFSTUDIO @ image.c2w, cameras[image.camera_id], mask=mask))
    return Capture(
        kind="COLMAP",
        root=root,
        frames=frames,
        image_sets=_image_sets(root, names, model),
        names=names,
        points=read_points(model),
        applied_transform=COLMAP_TO_NERFSTUDIO,
        notes=notes,
    )


def find_masks(root: Path, masks_path: Path | None, names: list[str]) -> list[Path | None]:
    """The masks of the images ``names``: masks/a.png or masks/a.jpg.png for a.jpg. DataError when one lacks."""
    if masks_path is None:
        return [None] * len(names)
    folder, lookup = safe_path(root, masks_path, "masks_path"), FileLookup()
    masks = [lookup.find(folder, name) or lookup.find(folder, f"{name}.png") for name in names]
    for name, mask in zip(names, masks, strict=True):
        if mask is None:
            expected = folder / Path(name).with_suffix(".png")
            raise DataError(f"The image {name} has no mask: looked for {expected} and {name}.png beside it. Add it.")
    return masks


def _image_sets(root: Path, names: list[str], model: Path) -> dict[int, list[Path]]:
    """Every complete set of the registered images below ``root``."""
    for name in names:
        safe_path(root / "images", name, model / "images.*")
    folder = next(iter(image_folders(root).values()), None)
    if folder is None:
        raise DataError(f"{root} has a COLMAP model but no folder images/ or images_N/. Put the photographs there.")
    sets = complete_sets(root, names)
    if not sets:
        lookup = FileLookup()
        missing = [name for name in names if lookup.find(folder, name) is None]
        hint = did_you_mean(missing[0], [path.name for path in list_images(folder)]) if missing else ""
        raise DataError(
            f"{folder} lacks {len(missing)} of the {len(names)} images that {model} registers, "
            f"first {', '.join(missing[:3])}.{hint} Restore them, or remove them from the model."
        )
    return sets


def _open(stem: Path) -> _Bytes | _Lines | None:
    """The binary file called ``stem``, else the text file, else None."""
    for suffix, kind in ((".bin", _Bytes), (".txt", _Lines)):
        path = stem.with_suffix(suffix)
        if path.is_file():
            with reading(path, EXPORT_AGAIN):
                return kind(path)
    return None


def _cameras_binary(source: _Bytes) -> Iterator[Camera]:
    for _ in range(source.take("Q")[0]):
        camera_id, model_id, width, height = source.take("iiQQ")
        if model_id not in CAMERA_MODEL_IDS:
            raise ValueError(f"camera {camera_id} has the unknown model number {model_id}")
        model = CAMERA_MODEL_IDS[model_id]
        params = np.array(source.take(f"{model.num_params}d"))
        yield Camera(camera_id, model.model_name, width, height, params)


def _cameras_text(source: _Lines) -> Iterator[Camera]:
    for camera_id, model, width, height, *params in source.rows(100):
        yield Camera(int(camera_id), model, int(width), int(height), np.array(params, dtype=np.float64))


def _to_intrinsics(camera: Camera, where: str) -> Intrinsics:
    wanted = CAMERA_MODEL_NAMES[camera.model].num_params if camera.model in CAMERA_MODEL_NAMES else len(camera.params)
    if len(camera.params) != wanted:
        raise ValueError(f"camera {camera.id} has {len(camera.params)} parameters, {camera.model} has {wanted}")
    try:
        params = parse_colmap_camera_params(camera)
    except NotImplementedError as error:
        raise DataError(
            f"{where} has the model {camera.model}, which nerfstudio cannot use. Undistort the capture with "
            "'colmap image_undistorter' and train on its output."
        ) from error
    return Intrinsics(
        int(params["w"]), int(params["h"]), params["fl_x"], params["fl_y"], params["cx"], params["cy"],
        tuple(float(params.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")),
        CAMERA_MODEL_TO_TYPE[params["camera_model"]],
    ).check(where)  # fmt: skip


def _images_binary(source: _Bytes) -> Iterator[tuple[str, int, npt.NDArray[np.float64]]]:
    """Name, camera id and world-to-camera pose (quaternion w, x, y, z, then translation) of each photograph."""
    for _ in range(source.take("Q")[0]):
        _, *pose, camera_id = source.take("i7di")
        name = source.name()
        source.skip(24 * source.take("Q")[0])  # x, y, point id of every 2D observation
        yield name, camera_id, np.array(pose)


def _images_text(source: _Lines) -> Iterator[tuple[str, int, npt.NDArray[np.float64]]]:
    """The same from text, where a name may have blanks and a line of 2D observations, may be empty, follows."""
    for row in source.rows(10):
        if len(row) < 10:
            raise ValueError("not an id, a pose of 7 numbers, a camera and a name")
        observations = source.next().split() if source.number < len(source.lines) else []
        if len(observations) % 3 or not all(word.lstrip("-").isdigit() for word in observations[-1:]):
            raise ValueError("not the 2D observations that follow each image: x, y and a point's id, repeated")
        yield row[9], int(row[8]), np.array(row[1:8], dtype=np.float64)


def _points_binary(source: _Bytes) -> Iterator[tuple[Any, ...]]:
    """x, y, z, red, green, blue of each point."""
    for _ in range(source.take("Q")[0]):
        _, *values, _, track_length = source.take("Q3d3BdQ")
        source.skip(8 * track_length)  # image id, observation index
        yield tuple(values)


def _points_text(source: _Lines) -> Iterator[tuple[float, ...]]:
    for _, x, y, z, red, green, blue, *_ in source.rows(8):
        yield float(x), float(y), float(z), float(red), float(green), float(blue)
