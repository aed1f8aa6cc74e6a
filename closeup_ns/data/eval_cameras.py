"""The cameras of an evaluation, and the file that lists them: a transforms.json whose frames need no image.

World frame: that of the capture's own files, before nerfstudio turns, centres and scales it (``transform_matrix`` as in
the capture's transforms.json without an ``applied_transform``). So one list serves every method.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from closeup_ns.atomic import write_json
from closeup_ns.data.capture import check_pose, safe_path
from closeup_ns.errors import DataError
from closeup_ns.views.view import View

_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
_SIZES = ("w", "h")
_LENSES = ("fl_x", "fl_y", "cx", "cy")


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
    """Its photograph; None where none exists."""


def write_cameras(path: Path, cameras: Sequence[EvalCamera]) -> None:
    """Write the list. Photographs are named relative to the file's folder, below which they must lie."""
    root = path.parent.resolve()
    frames = []
    for camera in cameras:
        K, view = camera.view.K.double(), camera.view
        frame: dict[str, Any] = {"name": camera.name, "scale": float(camera.scale), "w": view.width, "h": view.height}
        lens = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        frame.update({key: float(value) for key, value in zip(_LENSES, lens, strict=True)})
        frame["transform_matrix"] = (view.c2w.double() * _OPENGL).tolist()
        if camera.truth is not None:
            frame["file_path"] = str(camera.truth.resolve().relative_to(root))
        frames.append(frame)
    write_json(path, {"camera_model": "PINHOLE", "frames": frames})


def read_cameras(path: Path) -> list[EvalCamera]:
    """Read a list of cameras: our own, or any transforms.json (its frames count as far views unless they say a scale).

    A frame's name is ``name``, else the stem of its ``file_path``; intrinsics may stand per frame or once for all.

    Raises:
        DataError: the file is missing or damaged, a pose is no rigid transform, two cameras have one name, or a
            photograph lies outside the folder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        cameras = [_camera(frame, content, path) for frame in content["frames"]]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(f"cannot read the cameras of {path}: {problem!r}") from problem
    names = [camera.name for camera in cameras]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"{path} has two cameras called {doubled[0]}")
    if not cameras:
        raise DataError(f"{path} lists no cameras")
    return cameras


def photographs_of(transforms: Path) -> list[tuple[View, Path]]:
    """The photographs of a transforms.json: those of its training split where it lists one."""
    content = json.loads(transforms.read_text(encoding="utf8")) if transforms.is_file() else {}
    listed = {Path(name).stem for name in content.get("train_filenames", [])}
    cameras = [camera for camera in read_cameras(transforms) if not listed or camera.name in listed]
    return [(camera.view, camera.truth) for camera in cameras if camera.truth is not None]


def _camera(frame: dict[str, Any], content: dict[str, Any], path: Path) -> EvalCamera:
    numbers: dict[str, Any] = {key: frame.get(key, content.get(key)) for key in (*_SIZES, *_LENSES)}
    lacking = [key for key, value in numbers.items() if value is None]
    file_path = frame.get("file_path")
    name = str(frame.get("name") or Path(str(file_path)).stem)
    if lacking or (file_path is None and "name" not in frame):
        raise DataError(f"{path}: a frame lacks {', '.join(lacking) or 'both name and file_path'}")
    if "/" in name or name in ("", ".", ".."):
        raise DataError(f"{path}: {name!r} cannot name a picture")
    fx, fy, cx, cy = (float(numbers[key]) for key in _LENSES)
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    pose = check_pose(np.asarray(frame["transform_matrix"], dtype=np.float64), f"{path}, camera {name}")
    view = View(K, torch.from_numpy(pose) * _OPENGL, int(numbers["w"]), int(numbers["h"]))
    truth = None if file_path is None else safe_path(path.parent, file_path, path)
    return EvalCamera(name, float(frame.get("scale", 1.0)), view, truth)
