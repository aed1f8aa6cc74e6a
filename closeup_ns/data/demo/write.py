"""A capture's files as nerfstudio reads them: transforms.json, photographs, sparse points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.data.demo.layout import Points
from closeup_ns.views.opengl import frame_of
from closeup_ns.views.view import View


def write_points(path: Path, points: Points, colours: NDArray[np.uint8]) -> None:
    """Save points [N, 3] and colours [N, 3] as a binary PLY file."""
    with atomic_path(path) as temporary:
        trimesh.PointCloud(points, colours).export(temporary, file_type="ply")


def write_transforms(folder: Path, frames: Sequence[tuple[str, View]], extra: Mapping[str, Any]) -> None:
    """Write ``folder``/transforms.json: frames of (path relative to ``folder``, view), and further keys.

    nerfstudio's matrices are camera-to-world with OpenGL axes, and are read as they are (its "nerfstudio-data" parser).
    """
    listed = [{"file_path": path, **frame_of(view)} for path, view in frames]
    write_json(folder / "transforms.json", {"camera_model": "PINHOLE", **extra, "frames": listed})
