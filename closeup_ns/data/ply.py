"""A reader for the point clouds that come with captures: PLY, ascii or binary, without open3d.

nerfstudio reads ``ply_file_path`` through open3d, whose wheel needs a system library that bare machines lack.
Format: Greg Turk, "The PLY Polygon File Format" (1994).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from closeup_ns.data.capture import PointCloud
from closeup_ns.reading import reading

SCALAR_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
UNCOLOURED = 127
"""Grey level of points that have no colour."""


@dataclass
class _Element:
    """One ``element`` of the header; ``properties`` are (name, numpy type code)."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)

    def dtype(self, order: str) -> np.dtype:
        if any(not code for _, code in self.properties):
            raise ValueError(f"its element {self.name!r} has list properties, which are not supported here")
        return np.dtype([(name, order + code) for name, code in self.properties])


def read_ply(path: Path) -> PointCloud:
    """Read the vertices of a PLY file: positions, and colours where it has them (mid grey elsewhere).

    Args:
        path: ascii, binary_little_endian or binary_big_endian PLY. Positions of any scalar type; red, green and blue
            as integers, or as floats in [0, 1]. Further properties and elements are skipped.

    Raises:
        DataError: not a PLY file, truncated, without x, y, z, or with list properties before the vertices' end.
    """
    with reading(f"The point cloud {path}", "Export it again, or remove it and its entry to do without."):
        data = path.read_bytes()
        encoding, elements, start = _parse_header(data)
        names = [element.name for element in elements]
        if "vertex" not in names:
            raise ValueError("it has no vertex element")
        before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
        dtype = vertex.dtype(BYTE_ORDERS[encoding])
        if encoding == "ascii":
            lines = [line for line in data[start:].decode("latin-1").splitlines() if line.strip()]
            lines = lines[sum(element.count for element in before) :][: vertex.count]
            table = np.loadtxt(lines, dtype, comments=None, ndmin=1) if lines else np.empty(0, dtype)
        else:
            start += sum(element.count * element.dtype(BYTE_ORDERS[encoding]).itemsize for element in before)
            whole = max(0, len(data) - start) // dtype.itemsize
            table = np.frombuffer(data[start:], dtype, count=min(whole, vertex.count))
        if len(table) < vertex.count:
            raise ValueError(f"it is truncated: {vertex.count} points are announced, {len(table)} are there")
        return _to_cloud(table, path.name)


def _parse_header(data: bytes) -> tuple[str, list[_Element], int]:
    """The encoding, the elements in file order and the offset of the first byte after the header."""
    if data.splitlines()[:1] != [b"ply"]:
        raise ValueError("it is not a PLY file")
    header, end, _ = data.partition(b"end_header")
    start = data.find(b"\n", len(header)) + 1
    if not end or not start:
        raise ValueError("its header has no end")
    elements: list[_Element] = []
    encoding = "missing"
    for line in header.decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["comment" | "obj_info", *_] | []:
                pass
            case ["format", encoding, *_]:
                pass
            case ["element", name, count] if count.isdigit():
                elements.append(_Element(name, int(count)))
            case ["property", "list", *_, name] if elements:
                elements[-1].properties.append((name, ""))
            case ["property", kind, name] if elements and kind in SCALAR_TYPES:
                elements[-1].properties.append((name, SCALAR_TYPES[kind]))
            case _:
                raise ValueError(f"its header line {line!r} makes no sense")
    if encoding not in BYTE_ORDERS:
        raise ValueError(f"its format is {encoding}, not ascii or binary")
    return encoding, elements, start


def _to_cloud(table: npt.NDArray[np.void], source: str) -> PointCloud:
    names = table.dtype.names or ()
    xyz = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    channels = next((c for c in (("red", "green", "blue"), ("r", "g", "b")) if set(c) <= set(names)), None)
    if channels is None:
        rgb = np.full(xyz.shape, UNCOLOURED, np.uint8)
    else:
        rgb = np.stack([_to_bytes(table[channel]) for channel in channels], axis=1)
    return PointCloud(xyz, rgb, source).finite()


def _to_bytes(channel: npt.NDArray) -> npt.NDArray[np.uint8]:
    """A colour channel as uint8: integers are clipped (16-bit ones scaled), floats are taken to be in [0, 1]."""
    if channel.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(channel), 0.0, 1.0) * 255.0).astype(np.uint8)
    if channel.dtype.kind == "u" and channel.dtype.itemsize == 2:
        return (channel // 257).astype(np.uint8)
    return np.clip(channel, 0, 255).astype(np.uint8)
