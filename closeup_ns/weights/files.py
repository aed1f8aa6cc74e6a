"""Whether files on disk are those that were published: by size, by checksum, or at least by their own header."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closeup_ns.atomic import write_json
from closeup_ns.errors import RefinerError
from closeup_ns.weights.header import BrokenFile, read_header

MANIFEST = "closeup-weights.json"
"""Beside the files: what they were when they were verified, so that they can be verified again without the hub."""


@dataclass(frozen=True)
class Expected:
    """What a file is known to be."""

    size: int
    """Bytes."""
    sha256: str | None = None
    """Checksum of the content, where it is known."""
    git_blob: str | None = None
    """Git's own checksum, which the hub gives for small files in place of ``sha256``."""


@dataclass(frozen=True)
class FileState:
    """What was found of one file."""

    name: str
    """Below the folder that was looked at."""
    size: int | None
    """Bytes; None if it is not there."""
    sha256: str | None = None
    """Of the content, where it was read."""
    fault: str | None = None
    """What is wrong with it; None if nothing is known to be."""
    proven: bool = False
    """Whether its content was found to be the published one; otherwise only its size and header speak for it."""


@dataclass(frozen=True)
class Manifest:
    """Record of a verified folder."""

    repository: str
    """Hub id."""
    revision: str
    """Commit."""
    files: dict[str, Expected]
    """By name below the folder; each with its size and sha256."""


def fault_of(path: Path) -> str | None:
    """What is wrong with a file by its size and header alone; None if nothing is."""
    if not path.is_file():
        return "missing"
    try:
        if path.stat().st_size == 0:
            return "empty"
        if path.suffix == ".safetensors":
            read_header(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf8"))
    except (BrokenFile, OSError) as problem:
        return str(problem)
    except ValueError:
        return "not JSON"
    return None


def inspect(folder: Path, name: str, expected: Expected | None) -> FileState:
    """Looks at one file, and reads all of it unless its size or its header are wrong already."""
    path = folder / name
    fault = fault_of(path)
    size = path.stat().st_size if path.is_file() else None
    if size is not None and expected is not None and size != expected.size:
        fault = fault or f"{size} bytes where {expected.size} were published"
    if fault:
        return FileState(name, size, fault=fault)
    sha256 = sha256_of(path)
    if expected is None or (expected.sha256 is None and expected.git_blob is None):
        return FileState(name, size, sha256)
    if expected.sha256 is None:
        fault = None if git_blob_of(path) == expected.git_blob else "its content is not what was published"
    elif sha256 != expected.sha256:
        fault = f"its sha256 is {sha256[:12]}..., {expected.sha256[:12]}... was published"
    return FileState(name, size, sha256, fault, proven=fault is None)


def sha256_of(path: Path) -> str:
    """Checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as read:
        for block in iter(lambda: read.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def git_blob_of(path: Path) -> str:
    """The name that git gives to a file's content; small files only, since all of it is read at once."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The record beside the files; None where there is none.

    Raises:
        RefinerError: it is there and unreadable.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
        files = {str(name): Expected(int(row["size"]), str(row["sha256"])) for name, row in table["files"].items()}
        return Manifest(str(table["repository"]), str(table["revision"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise RefinerError(f"{path} cannot be read ({problem!r}); remove it and verify again") from problem


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the record, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    files = {name: {"size": row.size, "sha256": row.sha256} for name, row in sorted(manifest.files.items())}
    write_json(folder / MANIFEST, {"repository": manifest.repository, "revision": manifest.revision, "files": files})
