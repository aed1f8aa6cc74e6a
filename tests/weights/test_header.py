"""Headers of safetensors files: as the library reads them, and refused where the file is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from closeup_ns.weights.header import BrokenFile, read_header

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int64, torch.bool]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    tensors = {f"tensor.{number}": torch.zeros(number, 3, dtype=dtype) for number, dtype in enumerate(DTYPES)}
    save_file({**tensors, "scalar": torch.zeros(())}, path, metadata={"format": "pt"})
    return path


def test_names_shapes_and_types_are_the_librarys(written: Path) -> None:
    header = read_header(written)
    with safe_open(str(written), framework="pt") as file:
        expected = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        assert header.keys() == expected.keys()
        for name, entry in header.items():
            assert list(entry.shape) == expected[name].get_shape() and entry.dtype == expected[name].get_dtype()


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_no_part_of_a_file_passes_for_the_whole(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.mktemp("header") / "model.safetensors"
    save_file({"tensor": torch.zeros(20, 20)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BrokenFile, match=r"cut off|not a safetensors file"):
        read_header(path)


def test_a_longer_file_is_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes() + b"12")
    with pytest.raises(BrokenFile, match="2 bytes longer"):
        read_header(written)


def test_a_git_lfs_pointer_is_known(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1000000\n")
    with pytest.raises(BrokenFile, match="Git LFS pointer.*git lfs pull"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        [1],
        {"t": [1]},
        {"t": {"dtype": "F32", "shape": [1]}},
        {"t": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"t": {"dtype": "F32", "shape": ["a"], "data_offsets": [0, 4]}},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, header: object) -> None:
    path, text = tmp_path / "model.safetensors", json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(BrokenFile, match=r"unreadable|damaged"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"<html>not found</html>", b"PK\x03\x04" * 20])
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"not a safetensors file|cut off"):
        read_header(path)
