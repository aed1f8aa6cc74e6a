"""What photographs are called: by whoever names one on the command line, in plans and in messages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def photograph_names(paths: Sequence[Path]) -> list[str]:
    """One name per file, no two alike: the files' own, or with their folders (``left/a.png``) where those repeat."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.parent for path in paths])
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]


def find_photograph(names: Sequence[str], wanted: str) -> int:
    """Position of the photograph called ``wanted``; its last part is enough where only one ends in it.

    Raises:
        LookupError: none is called so, or several are; the message says which there are.
    """
    if wanted in names:
        return list(names).index(wanted)
    ending = [index for index, name in enumerate(names) if wanted and f"/{name}".endswith(f"/{wanted}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise LookupError(f"{len(ending)} are called {wanted}: {_some([names[index] for index in ending])}")
    raise LookupError(f"none is called {wanted}; there are {_some(names)}")


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)
