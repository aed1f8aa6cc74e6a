"""The PLY reader against files written here byte by byte, in every encoding and property type."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closeup_ns.data.ply import UNCOLOURED, read_ply
from closeup_ns.errors import DataError

CODES = {
    "char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h", "ushort": "H", "uint16": "H",
    "int": "i", "int32": "i", "uint": "I", "uint32": "I", "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip
FORMATS = ["ascii", "binary_little_endian", "binary_big_endian"]


def write(path: Path, encoding: str, elements: list[tuple[str, list[tuple[str, str]], list[tuple]]]) -> None:
    """``elements``: (name, [(type, property)], rows)."""
    lines = ["ply", f"format {encoding} 1.0", "comment made by hand"]
    body = b""
    for name, properties, rows in elements:
        lines += [f"element {name} {len(rows)}", *(f"property {kind} {prop}" for kind, prop in properties)]
        for row in rows:
            if encoding == "ascii":
                body += (" ".join(repr(value) for value in row) + "\n").encode()
            else:
                order = "<" if "little" in encoding else ">"
                body += struct.pack(order + "".join(CODES[kind] for kind, _ in properties), *row)
    path.write_bytes("\n".join([*lines, "end_header", ""]).encode() + body)


@pytest.mark.parametrize("encoding", FORMATS)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_type_of_properties(encoding: str, tmp_path: Path, data: st.DataObject) -> None:
    position = data.draw(st.sampled_from(["float", "float32", "double", "float64"]))
    colour = data.draw(st.sampled_from(["uchar", "uint8"]))
    extras = data.draw(st.lists(st.sampled_from(sorted(CODES)), max_size=3))
    properties = [(position, axis) for axis in "xyz"] + [(colour, name) for name in ("red", "green", "blue")]
    properties += [(kind, f"extra{index}") for index, kind in enumerate(extras)]
    order = data.draw(st.permutations(range(len(properties))))
    coordinate = st.floats(-1e3, 1e3, width=32)
    rows = data.draw(
        st.lists(
            st.tuples(*[coordinate] * 3, *[st.integers(0, 255)] * 3, *[st.integers(0, 100)] * len(extras)), max_size=5
        )
    )
    elements = [
        ("camera", [("double", "f")], [(1.0,), (2.0,)]),
        ("vertex", [properties[i] for i in order], [tuple(row[i] for i in order) for row in rows]),
        ("material", [("int", "a")], [(1,)]),
    ]
    path = tmp_path / "points.ply"
    write(path, encoding, elements)
    cloud = read_ply(path)
    np.testing.assert_array_equal(cloud.xyz, np.array([row[:3] for row in rows]).reshape(-1, 3))
    np.testing.assert_array_equal(cloud.rgb, np.array([row[3:6] for row in rows]).reshape(-1, 3))


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
    properties = [("float", axis) for axis in "xyz"] + [(kind, name) for name in ("red", "green", "blue")]
    write(tmp_path / "a.ply", encoding, [("vertex", properties, [(1.0, 2.0, 3.0, *values)])])
    assert read_ply(tmp_path / "a.ply").rgb.tolist() == [list(expected)]


def test_points_without_colour_are_grey_and_those_at_nan_are_left_out(tmp_path: Path) -> None:
    rows = [(1.0, float("nan"), 3.0), (4.0, 5.0, 6.0)]
    write(tmp_path / "a.ply", "binary_little_endian", [("vertex", [("float", axis) for axis in "xyz"], rows)])
    cloud = read_ply(tmp_path / "a.ply")
    assert cloud.xyz.tolist() == [[4, 5, 6]] and cloud.rgb.tolist() == [[UNCOLOURED] * 3]


def test_windows_line_ends_and_faces(tmp_path: Path) -> None:
    header = ["ply", "format ascii 1.0", "element vertex 1", "property float x", "property float y", "property float z"]
    header += ["element face 1", "property list uchar int vertex_indices", "end_header", "1 2 3", "3 0 0 0", ""]
    (tmp_path / "a.ply").write_bytes("\r\n".join(header).encode())
    assert read_ply(tmp_path / "a.ply").xyz.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("encoding", FORMATS)
def test_truncated(encoding: str, tmp_path: Path) -> None:
    rows = [(1.25, 2.25, 3.25)] * 10
    write(tmp_path / "a.ply", encoding, [("vertex", [("float", axis) for axis in "xyz"], rows)])
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data[:-40])
    with pytest.raises(DataError, match=r"a\.ply cannot be read .* cut off"):
        read_ply(tmp_path / "a.ply")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Not a ply"),
        ("solid cube\n", "Not a ply"),
        ("ply\nformat ascii 1.0\n", "cannot be read"),
        ("ply\nformat ascii 1.0\nend_header\n", "lacks 'vertex'"),
        ("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "lacks 'y'"),
        (None, "does not exist"),
    ],
)
def test_unusable(content: str | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.ply").write_text(content)
    with pytest.raises(DataError, match=rf"a\.ply.*{reason}"):
        read_ply(tmp_path / "a.ply")
