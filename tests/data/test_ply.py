"""The PLY reader against files written here byte by byte, in every encoding."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from closeup_ns.data.ply import UNCOLOURED, read_ply
from closeup_ns.errors import DataError

CODES = {"float": "f", "ushort": "H", "int": "i"}
XYZ = [("float", axis) for axis in "xyz"]
FORMATS = ["ascii", "binary_little_endian", "binary_big_endian"]


def encoded(encoding: str, properties: list[tuple[str, str]], rows: list[tuple]) -> bytes:
    """``properties``: (type, name)."""
    lines = ["ply", f"format {encoding} 1.0", f"element vertex {len(rows)}"]
    lines += [f"property {kind} {name}" for kind, name in properties]
    body = b""
    for row in rows:
        if encoding == "ascii":
            body += (" ".join(repr(value) for value in row) + "\n").encode()
        else:
            order = "<" if "little" in encoding else ">"
            body += struct.pack(order + "".join(CODES[kind] for kind, _ in properties), *row)
    return "\n".join([*lines, "end_header", ""]).encode() + body


@pytest.mark.parametrize("encoding", FORMATS)
@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("float", (0.0, 0.5, 1.0), (0, 128, 255)),
        ("ushort", (0, 32896, 65535), (0, 128, 255)),
        ("int", (-5, 128, 300), (0, 128, 255)),
    ],
)
def test_other_colour_types(encoding: str, kind: str, values: tuple, expected: tuple, tmp_path: Path) -> None:
    properties = XYZ + [(kind, name) for name in ("red", "green", "blue")]
    (tmp_path / "a.ply").write_bytes(encoded(encoding, properties, [(1.0, 2.0, 3.0, *values)]))
    assert read_ply(tmp_path / "a.ply").rgb.tolist() == [list(expected)]


def test_points_without_colour_are_grey_and_those_at_nan_are_left_out(tmp_path: Path) -> None:
    rows = [(1.0, float("nan"), 3.0), (4.0, 5.0, 6.0)]
    (tmp_path / "a.ply").write_bytes(encoded("binary_little_endian", XYZ, rows))
    cloud = read_ply(tmp_path / "a.ply")
    assert cloud.xyz.tolist() == [[4, 5, 6]] and cloud.rgb.tolist() == [[UNCOLOURED] * 3]


def test_windows_line_ends_and_faces(tmp_path: Path) -> None:
    header = ["ply", "format ascii 1.0", "element vertex 1", "property float x", "property float y", "property float z"]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header", "1 2 3", "3 0 0 0", ""]
    (tmp_path / "a.ply").write_bytes("\r\n".join(header).encode())
    assert read_ply(tmp_path / "a.ply").xyz.tolist() == [[1, 2, 3]]


TEN_POINTS = [(1.25, 2.25, 3.25)] * 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "Not a ply"),
        (b"solid cube\n", "Not a ply"),
        (b"ply\nformat ascii 1.0\n", "cannot be read"),
        (b"ply\nformat ascii 1.0\nend_header\n", "lacks 'vertex'"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "lacks 'y'"),
        *((encoded(encoding, XYZ, TEN_POINTS)[:-40], "cannot be read .* cut off") for encoding in FORMATS),
    ],
)
def test_what_cannot_be_used_is_named(content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.ply.*{reason}"):
        read_ply(tmp_path / "a.ply")
