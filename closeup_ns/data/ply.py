"""Point clouds as PLY files, ascii or binary, by trimesh.

nerfstudio reads ``ply_file_path`` through open3d, whose wheel needs a system library that bare machines lack.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import trimesh
from trimesh.exchange.ply import load_ply

from closeup_ns.atomic import atomic_path
from closeup_ns.data.capture import PointCloud
from closeup_ns.reading import reading

UNCOLOURED = 127
"""Grey level of points that have no colour."""


def write_points(path: Path, points: npt.NDArray[np.float64], colours: npt.NDArray[np.uint8]) -> None:
    """Save points [N, 3] and colours [N, 3] as a binary PLY file."""
    with atomic_path(path) as temporary:
        trimesh.PointCloud(points, colours).export(temporary, file_type="ply")


def read_ply(path: Path) -> PointCloud:
    """Read the vertices of a PLY file: positions, and colours where it has them (mid grey elsewhere).

    Args:
        path: positions of any scalar type; red, green and blue as integers, or as floats in [0, 1].

    Raises:
        DataError: not a PLY file, truncated, or without x, y, z.
    """
    remedy = "It may be cut off: export it again, or remove it and its entry to do without."
    with reading(f"The point cloud {path}", remedy):
        with open(path, "rb") as file:
            content = load_ply(file, fix_texture=False, skip_materials=True)
        announced = content["metadata"]["_ply_raw"]["vertex"]["length"]
        xyz = np.asarray(content.get("vertices", np.empty((0, 3))), np.float64)
        if len(xyz) != announced:
            raise ValueError(f"{announced} points are announced, {len(xyz)} are there")
        colours = content.get("vertex_colors")
        rgb = np.full(xyz.shape, UNCOLOURED, np.uint8) if colours is None else _to_bytes(colours[:, :3])
        return PointCloud(xyz, rgb, path.name).finite()


def _to_bytes(colours: npt.NDArray) -> npt.NDArray[np.uint8]:
    """Colours as uint8: integers are clipped (16-bit ones scaled), floats are taken to be in [0, 1]."""
    if colours.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(colours), 0.0, 1.0) * 255.0).astype(np.uint8)
    if colours.dtype.kind == "u" and colours.dtype.itemsize == 2:
        return (colours // 257).astype(np.uint8)
    return np.clip(colours, 0, 255).astype(np.uint8)
