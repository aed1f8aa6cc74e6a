"""Files that appear whole or not at all, and what a disk that refuses them is told as."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from closeup_ns.errors import CloseupError, DiskError

PARTIAL = ".partial-"
"""How the names of unfinished files and folders begin; a killed process leaves them behind."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
_TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter")


@contextmanager
def atomic_path(destination: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``destination`` that is renamed onto it when the block ends without an error.

    The temporary file is in the same folder, so the rename is atomic, and carries the same suffix, so writers that
    choose a format by suffix work. On an error it is removed and ``destination`` is untouched.
    """
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f"{PARTIAL}{destination.stem}-", suffix=destination.suffix, dir=destination.parent
        )
        temporary = Path(name)
        try:
            os.fchmod(handle, 0o666 & ~_umask())  # mkstemp's files are for their owner alone; results are for sharing
            os.close(handle)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, destination)
        finally:
            with contextlib.suppress(OSError):  # a disk that became read-only: the first error is the one to tell
                temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the failure of a disk within the block into an error that names ``path``, the reason and the remedy.

    Libraries hide it: torch speaks of its own source line, zipfile of a handle that is still open.

    Raises:
        DiskError: the disk is full, read-only or failing.
    """
    try:
        yield
    except CloseupError:
        raise
    except Exception as error:
        reason = _disk_failure(error, path)
        if reason is None:
            raise
        raise DiskError(
            f"cannot write {path}: {reason}, and give the command again; what was finished is kept"
        ) from error


def _disk_failure(error: BaseException | None, path: Path) -> str | None:
    """What the disk said, anywhere in the chain of ``error``, and what to do; None where something else failed."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return f"{os.strerror(error.errno)}. Free space there"
        if isinstance(error, OSError) and error.errno in _REFUSED:
            return f"{os.strerror(error.errno)}. Make it writable or choose another place"
        if any(sign in str(error) for sign in _TORCH_WRITER):
            return f"the disk took only a part of it ({_free_megabytes(path):.0f} MB are free). Free space there"
        error = error.__cause__ or error.__context__
    return None


def _free_megabytes(path: Path) -> float:
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    return shutil.disk_usage(folder).free / 1e6


def _umask() -> int:
    """The process's file-mode mask; the only way to read it is to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_json(destination: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all. NaN and infinity are refused (ValueError)."""
    with atomic_path(destination) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf8")


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left unfinished below ``folder``; nobody else may be writing there."""
    for leftover in folder.rglob(f"{PARTIAL}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
