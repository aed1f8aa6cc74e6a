"""Files against what was published of them, and the manifest that remembers it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from closeup_ns.errors import RefinerError
from closeup_ns.weights.files import (
    MANIFEST,
    Expected,
    Manifest,
    git_blob_of,
    inspect,
    read_manifest,
    sha256_of,
    write_manifest,
)

CONTENT = b'{"a": 1}\n'
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_bytes(CONTENT)
    return tmp_path


def test_checksums_are_sha256_and_gits(folder: Path) -> None:
    path = folder / "config.json"
    assert sha256_of(path) == SHA
    git = subprocess.run(["git", "hash-object", "--no-filters", str(path)], capture_output=True, text=True, check=True)
    assert git_blob_of(path) == git.stdout.strip()


@pytest.mark.parametrize(
    ("expected", "fault", "proven"),
    [
        (None, None, False),
        (Expected(9), None, False),
        (Expected(9, SHA), None, True),
        (Expected(9, None, hashlib.sha1(b"blob 9\0" + CONTENT).hexdigest()), None, True),
        (Expected(10, SHA), "9 bytes where 10 were published", False),
        (Expected(9, "0" * 64), f"its sha256 is {SHA[:12]}..., 000000000000... was published", False),
        (Expected(9, None, "0" * 40), "its content is not what was published", False),
    ],
)
def test_a_file_against_what_was_published(
    folder: Path, expected: Expected | None, fault: str | None, proven: bool
) -> None:
    state = inspect(folder, "config.json", expected)
    assert (state.fault, state.proven, state.size) == (fault, proven, 9)


@pytest.mark.parametrize(("content", "fault"), [(None, "missing"), (b"", "empty"), (b"<html>", "not JSON")])
def test_what_needs_no_comparison(folder: Path, content: bytes | None, fault: str) -> None:
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert inspect(folder, "config.json", None).fault == fault


def test_the_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    manifest = Manifest("owner/name", "0" * 40, {"b/c.json": Expected(3, SHA), "a.json": Expected(9, SHA)})
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"repository": "a/b", "revision": "c", "files": {"x": 3}}'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(RefinerError, match=rf"{MANIFEST} cannot be read.*remove it"):
        read_manifest(tmp_path)
