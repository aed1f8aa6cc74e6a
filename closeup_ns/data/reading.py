"""One way for a file to be unreadable: whatever goes wrong while it is read ends in a DataError that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from closeup_ns.errors import CloseupError, DataError


@contextmanager
def reading(place: object, remedy: str) -> Iterator[None]:
    """Turn any failure of the block into a DataError.

    Lists of exceptions are never complete: damaged bytes make parsers raise what their authors did not expect.

    Args:
        place: the file, or what prints as the file and the place in it that was reached when it fails.
        remedy: what to do, as a sentence.
    """
    try:
        yield
    except CloseupError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{place} does not exist. Restore it, or remove the entry that names it.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            remedy = "Check the disk, the permissions, and how many files may be open at once."
            raise DataError(f"{place} cannot be read from the disk: {error.strerror}. {remedy}") from error
        why = str(error) if str(error) and not isinstance(error, KeyError) else repr(error)
        raise DataError(f"{place} cannot be read ({why}). {remedy}") from error


def read_frames(path: Path) -> dict[str, Any]:
    """What a JSON file with a list of "frames" holds, as transforms.json and lists of cameras are.

    Raises:
        DataError: it is missing, no JSON, or has no such list or an empty one.
    """
    with reading(path, "It may be cut off: copy it again, or run ns-process-data."):
        try:
            meta = json.loads(path.read_bytes())  # from bytes: byte order marks are obeyed
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path} has no list of 'frames'. Run ns-process-data to make one.")
    if not frames:
        raise DataError(f"{path} has no frames: there are no images to train on or to render. Export it again.")
    return meta
