"""The demo's files: nerfstudio's transforms.json with its photographs and sparse points, and the truth beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.data.demo_layout import Points
from closeup_ns.errors import DataError
from closeup_ns.views.view import View

_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class TruthView:
    """One true close-up: what a camera there really sees."""

    name: str
    """File name without folder or suffix."""
    scale: int
    """How many times nearer than the far photographs."""
    view: View
    """Camera in the frame of the capture's transforms.json (float64)."""
    image_path: Path
    """PNG, 8 bits."""


def write_photograph(path: Path, image: NDArray[np.uint8], jpeg_quality: int = 92) -> None:
    """Save ``image`` whole or not at all: JPEG or PNG by the suffix."""
    options: dict[str, Any] = {"quality": jpeg_quality} if path.suffix == ".jpg" else {"optimize": False}
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, **options)


def write_points(path: Path, points: Points, colours: NDArray[np.uint8]) -> None:
    """Save points [N, 3] and colours [N, 3] as a binary PLY file."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    table = np.empty(len(points), np.dtype(fields))
    for i, (name, _) in enumerate(fields):
        table[name] = points[:, i] if i < 3 else colours[:, i - 3]
    kinds = ["float", "float", "float", "uchar", "uchar", "uchar"]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {kind} {name}" for kind, (name, _) in zip(kinds, fields, strict=True)] + ["end_header", ""]
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join(header).encode("ascii") + table.tobytes())


def write_transforms(
    folder: Path, frames: Sequence[tuple[str, View, Mapping[str, Any]]], extra: Mapping[str, Any]
) -> None:
    """Write ``folder``/transforms.json: frames of (path relative to ``folder``, view, further keys), one intrinsics.

    nerfstudio's matrices are camera-to-world with OpenGL axes, and are read as they are (its "nerfstudio-data" parser).
    """
    first = frames[0][1]
    content: dict[str, Any] = {
        "camera_model": "OPENCV",
        "w": first.width,
        "h": first.height,
        "fl_x": float(first.K[0, 0]),
        "fl_y": float(first.K[1, 1]),
        "cx": float(first.K[0, 2]),
        "cy": float(first.K[1, 2]),
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        **extra,
        "frames": [
            {"file_path": path, "transform_matrix": (view.c2w.double() * _OPENGL).tolist(), **keys}
            for path, view, keys in frames
        ],
    }
    write_json(folder / "transforms.json", content)


def read_views(folder: Path) -> list[tuple[dict[str, Any], View]]:
    """The frames of ``folder``/transforms.json as written by `write_transforms`, with their views (float64, OpenCV).

    Raises:
        DataError: the file is missing or is not such a file, or a frame points outside ``folder``.
    """
    path = folder / "transforms.json"
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        K = torch.tensor(
            [[content["fl_x"], 0, content["cx"]], [0, content["fl_y"], content["cy"]], [0, 0, 1]], dtype=torch.float64
        )
        frames = [
            (
                frame,
                View(
                    K,
                    torch.tensor(frame["transform_matrix"], dtype=torch.float64) * _OPENGL,
                    content["w"],
                    content["h"],
                ),
            )
            for frame in content["frames"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(
            f"cannot read the demo's cameras from {path}: {problem!r}; write them anew with --fresh"
        ) from problem
    for frame, _ in frames:
        if not (folder / frame["file_path"]).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{path} names a file outside its folder: {frame['file_path']}")
    return frames


def read_truth(folder: Path) -> list[TruthView]:
    """The true close-ups below ``folder`` (the demo's truth/), sorted by scale and name."""
    views = [
        TruthView(Path(frame["file_path"]).stem, int(frame["scale"]), view, folder / frame["file_path"])
        for frame, view in read_views(folder)
    ]
    return sorted(views, key=lambda truth: (truth.scale, truth.name))
