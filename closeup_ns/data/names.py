"""Names of photographs: which there are, and finding one that is written differently than it is called."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")


def normalised(name: str) -> str:
    """``name`` without what differs between systems: separators, Unicode forms, case, byte order marks, blanks."""
    return unicodedata.normalize("NFKC", name).replace("\\", "/").strip("\ufeff \t\r\n").casefold()


def _without_suffix(name: str) -> str:
    """The same without an image's suffix: ``a.JPG`` may be kept as ``a.png``."""
    stem, suffix = os.path.splitext(normalised(name))
    return stem if suffix in IMAGE_SUFFIXES else stem + suffix


SPELLINGS: tuple[Callable[[str], str], ...] = (str, normalised, _without_suffix)
"""What makes two names one, strictest first."""


class FileLookup:
    """Finds files by names that may be written differently than on the disk; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, list[dict[str, list[str]]]] = {}

    def find(self, root: Path, name: str) -> Path | None:
        """The file ``name`` below ``root``; None where there is none, or several could be meant."""
        path = root / name
        if path.is_file():
            return path
        path = root
        for part in name.replace("\\", "/").split("/"):
            if part in ("", "."):
                continue
            tables = zip(self._tables(path), SPELLINGS, strict=True)
            same = next((found for table, spelling in tables if (found := table.get(spelling(part)))), [])
            if len(same) != 1:
                return None
            path /= same[0]
        return path if path.is_file() else None

    def _tables(self, folder: Path) -> list[dict[str, list[str]]]:
        """For each of `SPELLINGS`: spelling -> entries of ``folder``; hidden ones (``._a.jpg``) are left out."""
        if folder not in self._folders:
            tables: list[dict[str, list[str]]] = [defaultdict(list) for _ in SPELLINGS]
            for entry in sorted(os.listdir(folder)) if folder.is_dir() else ():
                for table, spelling in zip(tables, SPELLINGS, strict=True):
                    if not entry.startswith("."):
                        table[spelling(entry)].append(entry)
            self._folders[folder] = tables
        return self._folders[folder]


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """`` Did you mean ...?`` with the most similar of ``names``; nothing where none is."""
    spelled = {normalised(each): each for each in names}
    close = difflib.get_close_matches(normalised(name), spelled, n=1)
    return f" Did you mean {spelled[close[0]]}?" if close else ""


def photograph_names(paths: Sequence[Path]) -> list[str]:
    """One name per file, no two alike: the files' own, or with their folders (``left/a.png``) where those repeat."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([path.parent for path in paths])
    return [Path(os.path.relpath(path, common)).as_posix() for path in paths]


def picture_names(paths: Sequence[Path]) -> list[str]:
    """One name per file for a picture of it, no two alike and none with a folder: ``a``, or ``left_a`` for a rig's."""
    whole = photograph_names(paths)
    short = [Path(name).stem for name in whole]
    joined = [Path(name).with_suffix("").as_posix().replace("/", "_") for name in whole]
    numbered = [f"{index:05d}_{name}" for index, name in enumerate(joined)]
    return next(names for names in (short, joined, numbered) if len(set(names)) == len(names))


def find_photograph(names: Sequence[str], wanted: str) -> int:
    """Position of the photograph called ``wanted``; its last part is enough where only one ends in it.

    Raises:
        LookupError: none is called so, or several are; the message says which there are.
    """
    if wanted in names:
        return list(names).index(wanted)
    for spelling in SPELLINGS if wanted else ():
        ending = [i for i, name in enumerate(names) if f"/{spelling(name)}".endswith(f"/{spelling(wanted)}")]
        if len(ending) == 1:
            return ending[0]
        if ending:
            raise LookupError(f"{len(ending)} are called {wanted}: {_some([names[index] for index in ending])}")
    raise LookupError(f"none is called {wanted}; there are {_some(names)}.{did_you_mean(wanted, names)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
