"""The cameras of an evaluation, and the file that lists them: a transforms.json whose frames need no image.

World frame: that of the capture's own files, before nerfstudio turns, centres and scales it (``transform_matrix`` as in
the capture's transforms.json without an ``applied_transform``). So one list serves every method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nerfstudio.cameras.cameras import CameraType

from closeup_ns.data.capture import LARGEST_NUMBER, safe_path
from closeup_ns.data.frames import write_transforms
from closeup_ns.data.names import picture_names
from closeup_ns.data.transforms import read_frames, read_intrinsics, read_pose
from closeup_ns.errors import DataError
from closeup_ns.reading import reading
from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class EvalCamera:
    """A camera to render from and to score."""

    name: str
    """Names its render (NAME.png); unique."""
    scale: float
    """How many times nearer than the training photographs; 1 for a far view."""
    view: View
    """float64, OpenCV axes, in the capture's frame."""
    truth: Path | None = None
    """Its photograph, undistorted and of the view's size; None where none exists."""
    mask: Path | None = None
    """Of the photograph: non-zero where a pixel counts. None: all of it."""


def write_cameras(path: Path, cameras: Sequence[EvalCamera]) -> None:
    """Write the list. Photographs are named relative to the file's folder, below which they must lie."""
    root = path.parent.resolve()
    frames = []
    for camera in cameras:
        keys: dict[str, Any] = {"name": camera.name, "scale": float(camera.scale)}
        for key, path_of in (("file_path", camera.truth), ("mask_path", camera.mask)):
            if path_of is not None:
                keys[key] = str(path_of.resolve().relative_to(root))
        frames.append((keys, camera.view))
    write_transforms(path, frames)


def read_cameras(path: Path) -> list[EvalCamera]:
    """Read a list of cameras: our own, or any transforms.json (its frames count as far views unless they say a scale).

    A frame's name is ``name``, else its ``file_path``'s; intrinsics may stand per frame or once for all.

    Raises:
        DataError: the file is missing or damaged, a camera is impossible or no pinhole, two cameras have one name, or a
            photograph lies outside the folder.
    """
    content = read_frames(path)
    with reading(path, "Correct it, or write the list of cameras again."):
        frames = content["frames"]
        unnamed = [Path(str(frame["file_path"])) for frame in frames if "name" not in frame and "file_path" in frame]
        own_names = iter(picture_names(unnamed))
        names = [str(frame["name"] if "name" in frame else next(own_names, "")) for frame in frames]
        cameras = [_camera(name, frame, content, path) for name, frame in zip(names, frames, strict=True)]
    doubled = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if doubled is not None:
        raise DataError(f"{path} has two cameras called {doubled}. Rename one.")
    return cameras


def photographs_of(transforms: Path) -> list[tuple[View, Path]]:
    """The photographs of a transforms.json: those of its training split where it lists one.

    Raises:
        DataError: as `read_cameras`, or no frame has a photograph.
    """
    listed = {
        safe_path(transforms.parent, name, transforms) for name in read_frames(transforms).get("train_filenames", [])
    }
    cameras = [camera for camera in read_cameras(transforms) if not listed or camera.truth in listed]
    found = [(camera.view, camera.truth) for camera in cameras if camera.truth is not None]
    if not found:
        raise DataError(f"{transforms} names no photographs. Name the transforms.json that was trained on.")
    return found


def _camera(name: str, frame: dict[str, Any], content: dict[str, Any], path: Path) -> EvalCamera:
    where = f"{path}, camera {name}"
    if not name:
        raise DataError(f"{path}: a frame lacks both name and file_path. Give it a name.")
    if "/" in name or name in (".", ".."):
        raise DataError(f"{path}: {name!r} cannot name a picture. Rename the frame.")
    lens = read_intrinsics(frame, content, None, where)
    if lens.camera_type is not CameraType.PERSPECTIVE or any(lens.distortion):
        raise DataError(f"{where}: renders are made by pinhole cameras without distortion. Undistort the photographs.")
    K = torch.tensor([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]], dtype=torch.float64)
    view = View(K, torch.from_numpy(flipped(read_pose(frame, where))), lens.width, lens.height)
    scale = float(frame.get("scale", 1.0))
    if not 1 / LARGEST_NUMBER < scale < LARGEST_NUMBER:
        raise DataError(f"{where}: scale is {scale}; it says how many times nearer the camera is, 1 for a far view.")
    truth, mask = (
        safe_path(path.parent, frame[key], path) if frame.get(key) else None for key in ("file_path", "mask_path")
    )
    return EvalCamera(name, scale, view, truth, mask)
