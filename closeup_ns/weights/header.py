"""What a safetensors file says about itself, read without torch and without its tensors."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100 * 2**20
"""The format's own limit; a longer one is a file of another kind."""

_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


class BrokenFile(ValueError):
    """The file is not a whole safetensors file; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header announces it."""

    shape: tuple[int, ...]
    """Its sizes."""
    dtype: str
    """safetensors' name of it: F16, BF16, F32."""


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Names, shapes and types of a file's tensors; some hundred kilobytes are read of a file of gigabytes.

    Raises:
        BrokenFile: it is cut off, a Git LFS pointer, or no safetensors file. OSError: it cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as read:
        start = read.read(_LENGTH_BYTES)
        if start == b"version ":
            raise BrokenFile("a Git LFS pointer, not the file: run `git lfs pull` in that clone")
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_BYTES or not 2 <= length <= _LONGEST_HEADER:
            raise BrokenFile(f"not a safetensors file ({size} bytes)")
        text = read.read(length)
    if len(text) < length:
        raise BrokenFile(f"cut off at {size} bytes, inside its header")
    try:
        table: dict[str, Any] = json.loads(text)
        table.pop("__metadata__", None)
        entries = {name: TensorEntry(tuple(entry["shape"]), entry["dtype"]) for name, entry in table.items()}
        end = max((entry["data_offsets"][1] for entry in table.values()), default=0)
        data = sum(math.prod(entry.shape) * _BITS[entry.dtype] // 8 for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
        raise BrokenFile(f"not a safetensors file (its header is unreadable: {problem!r})") from problem
    whole = _LENGTH_BYTES + length + end
    if data != end:
        raise BrokenFile(f"damaged: its tensors take {data} bytes, its header reserves {end}")
    if size < whole:
        raise BrokenFile(f"cut off at {size} of {whole} bytes")
    if size > whole:
        raise BrokenFile(f"{size - whole} bytes longer than its header says")
    return entries
