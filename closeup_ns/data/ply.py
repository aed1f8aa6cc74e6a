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
from closeup_ns.data.reading import reading

SCALAR_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
MAX_HEADER_LINES = 10_000
UNCOLOURED = 127
"""Grey level of points that have no colour."""


@dataclass
class _Element:
    """One ``element`` of the header; ``properties`` are (name, numpy type code), None for a list."""

    name: str
    count: int
    properties: list[tuple[str, str | None]] = field(default_factory=list)


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
        before: list[_Element] = []
        for element in elements:
            if element.name == "vertex":
                break
            before.append(element)
        else:
            raise ValueError("it has no vertex element")
        for needed in (*before, element):
            if any(code is None for _, code in needed.properties):
                raise ValueError(f"its element {needed.name!r} has list properties, which are not supported here")
        if encoding == "ascii":
            table = _read_ascii(data[start:], before, element)
        else:
            table = _read_binary(data, start, before, element, BYTE_ORDERS[encoding])
        return _to_cloud(table, path)


def _parse_header(data: bytes) -> tuple[str, list[_Element], int]:
    """The encoding, the elements in file order and the offset of the first byte after the header."""
    elements: list[_Element] = []
    encoding = ""
    offset = 0
    for number in range(MAX_HEADER_LINES):
        end = data.find(b"\n", offset)
        if end < 0:
            raise ValueError("its header has no end" if number else "it is not a PLY file")
        words = data[offset:end].decode("latin-1").split()
        offset = end + 1
        if number == 0:
            if words != ["ply"]:
                raise ValueError("it is not a PLY file")
        elif words[:1] == ["end_header"]:
            break
        elif not words or words[0] in ("comment", "obj_info"):
            continue
        else:
            encoding = _parse_header_line(words, elements) or encoding
    if encoding not in ("ascii", *BYTE_ORDERS):
        raise ValueError(f"its format is {encoding or 'missing'}, not ascii or binary")
    return encoding, elements, offset


def _parse_header_line(words: list[str], elements: list[_Element]) -> str | None:
    """Take one header line into ``elements``; return the encoding when the line is the one that names it."""
    try:
        if words[0] == "format":
            return words[1]
        if words[0] == "element":
            count = int(words[2])
            if count < 0:
                raise ValueError("negative count")
            elements.append(_Element(words[1], count))
        elif words[0] == "property" and words[1] == "list":
            elements[-1].properties.append((words[-1], None))
        elif words[0] == "property":
            elements[-1].properties.append((words[2], SCALAR_TYPES[words[1]]))
        else:
            raise ValueError("unknown keyword")
    except (IndexError, KeyError, ValueError) as error:
        raise ValueError(f"its header line {' '.join(words)!r} makes no sense") from error
    return None


def _dtype(element: _Element, order: str) -> np.dtype:
    names = [name for name, _ in element.properties]
    if len(set(names)) != len(names):
        # Two properties of one name: keep the first, as every field must have its own name.
        names = [name if names.index(name) == index else f"{name}#{index}" for index, name in enumerate(names)]
    return np.dtype([(name, order + str(code)) for name, (_, code) in zip(names, element.properties, strict=True)])


def _read_binary(data: bytes, start: int, before: list[_Element], vertex: _Element, order: str) -> npt.NDArray[np.void]:
    offset = start + sum(element.count * _dtype(element, order).itemsize for element in before)
    dtype = _dtype(vertex, order)
    if not dtype.itemsize:
        raise ValueError("its vertices have no properties")
    there = max(0, len(data) - offset) // dtype.itemsize
    if there < vertex.count:
        raise ValueError(f"it is truncated: {vertex.count} points are announced, {there} are there")
    return np.frombuffer(data, dtype, count=vertex.count, offset=offset)


def _read_ascii(body: bytes, before: list[_Element], vertex: _Element) -> npt.NDArray[np.void]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    skip = sum(element.count for element in before)
    rows = [line.split() for line in lines[skip : skip + vertex.count]]
    if len(rows) < vertex.count:
        raise ValueError(f"it is truncated: {vertex.count} points are announced, {len(rows)} are there")
    width = len(vertex.properties)
    short = next((index for index, row in enumerate(rows) if len(row) != width), None)
    if short is not None:
        raise ValueError(f"point {short} has {len(rows[short])} values instead of {width}")
    table = np.zeros(vertex.count, _dtype(vertex, "<"))
    values = np.array(rows, dtype=np.float64).reshape(vertex.count, width)
    for column, name in enumerate(table.dtype.names or ()):
        table[name] = values[:, column]
    return table


def _to_cloud(table: npt.NDArray[np.void], path: Path) -> PointCloud:
    names = table.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"its vertices have no x, y, z (only {', '.join(names)})")
    xyz = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    channels = next((c for c in (("red", "green", "blue"), ("r", "g", "b")) if set(c) <= set(names)), None)
    if channels is None:
        rgb = np.full(xyz.shape, UNCOLOURED, np.uint8)
    else:
        rgb = np.stack([_to_bytes(table[channel]) for channel in channels], axis=1)
    return PointCloud(xyz, rgb, path.name).finite()


def _to_bytes(channel: npt.NDArray) -> npt.NDArray[np.uint8]:
    """A colour channel as uint8: integers are clipped (16-bit ones scaled), floats are taken to be in [0, 1]."""
    if channel.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(channel), 0.0, 1.0) * 255.0).astype(np.uint8)
    if channel.dtype.kind == "u" and channel.dtype.itemsize == 2:
        return (channel // 257).astype(np.uint8)
    return np.clip(channel, 0, 255).astype(np.uint8)
