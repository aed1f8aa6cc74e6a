"""Errors that a user can act on: each message says what is wrong, where, and what to do."""

from __future__ import annotations

import sys


def say_error(program: str, message: str) -> None:
    """An error as a user sees it: one line on stderr, red on a terminal."""
    line = f"{program}: {' '.join(message.split())}"
    print(f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr)


class CloseupError(RuntimeError):
    """Base class of every error that closeup-ns raises on purpose."""


class DataError(CloseupError):
    """The capture on disk cannot be used: missing, truncated, or inconsistent files."""


class DiskError(CloseupError):
    """A file cannot be written: the disk is full, read-only or failing, or the folder is not the user's."""


class PlanningError(CloseupError):
    """No useful close-up views can be planned for this target and these cameras."""


class RoundStorageError(CloseupError):
    """A round's files are missing, damaged, or belong to another run."""


class RunFolderError(CloseupError):
    """A run's folder is in use by another process, or holds another run."""


class CheckpointError(CloseupError):
    """A run or its checkpoint cannot be loaded."""


class PhotographsGone(CheckpointError):
    """The photographs that a run was trained on are not on disk."""


class RefinerError(CloseupError):
    """A refiner or an enhancer cannot work: weights, packages or options are missing, or do not fit."""


class RefinerOutOfMemory(RefinerError):
    """A pass did not fit into the GPU's memory; a smaller one may."""
