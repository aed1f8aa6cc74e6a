"""A run's folder belongs to one process at a time, and to one run."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.atomic import PARTIAL, remove_partial, writing
from closeup_ns.errors import RunFolderError
from closeup_ns.rounds.store.rounds import RoundStore

LOCK = ".lock"
_held: dict[Path, int] = {}
"""Folders that this process holds, and their open lock files."""


def hold_folder(folder: Path) -> None:
    """Hold a run's folder, which is made if need be, until this process ends; clear what a killed one left in it.

    The lock is the operating system's (flock), so it is gone with the process however that ends; the file only says
    whose it is.

    Raises:
        RunFolderError: another process holds it.
        DiskError: the folder cannot be written.
    """
    path = folder.resolve() / LOCK
    if path in _held:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, fcntl.LOCK_EX, path)
        except RunFolderError:
            os.close(descriptor)
            raise
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    _held[path] = descriptor
    remove_partial(path.parent)


@contextmanager
def reading_folder(folder: Path) -> Iterator[None]:
    """Nobody trains in ``folder`` while the block runs. RunFolderError where somebody does."""
    path = folder.resolve() / LOCK
    if path in _held or not path.exists():
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor, fcntl.LOCK_SH, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunFolderError(
            f"{path.parent} is being written by {_holder(path)}. Wait until it ends, or stop it; to train beside it, "
            "give another --timestamp or --experiment-name"
        ) from error
    except OSError as error:
        CONSOLE.print(f"[yellow]{path.parent} cannot be locked ({error.strerror}): see that only one process writes it")


def _holder(path: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has just taken the lock
        return "another process"


def refuse_used_folder(config: TrainerConfig) -> None:
    """A folder that holds a run is only trained in to resume that run.

    Raises:
        RunFolderError: it holds one; the message has the commands to resume it, and to train beside it.
    """
    folder = config.get_base_dir()
    models = folder / config.relative_model_dir
    start = config.load_dir or (config.load_checkpoint.parent if config.load_checkpoint is not None else None)
    if start is not None and start.resolve() == models.resolve():
        return
    trained = any(models.glob("step-*.ckpt"))
    if not trained and (start is not None or not RoundStore(folder / "rounds").rounds()):
        return  # a run that died at its start, or whose rounds were brought from the run that it resumes
    beside = ["ns-train", config.method_name, "--data", config.pipeline.datamanager.data]
    beside += ["--output-dir", config.output_dir, "--experiment-name", config.experiment_name]
    here = [*beside, "--timestamp", config.timestamp, "--load-dir", models]
    beside_line, here_line = (shlex.join(map(str, command)) for command in (beside, here))
    raise RunFolderError(
        f"{folder} holds a run already, whose rounds and checkpoints another training would mix with its own. "
        f"Resume it: {here_line}   or train beside it: {beside_line}   (each with this run's other options)"
    )


def inherit_rounds(checkpoint_dir: Path, base_dir: Path) -> None:
    """Bring the rounds of the run that is resumed into the new run's folder: nerfstudio starts a folder of its own.

    The copy appears whole or not at all, and is made once, from files that can all be read.

    Raises:
        RunFolderError: that run is still being trained.
        RoundStorageError: one of its files is damaged.
        DiskError: there is no room for the copy.
    """
    source, destination = checkpoint_dir.parent / "rounds", base_dir / "rounds"
    with reading_folder(source.parent):
        if not source.is_dir() or destination.exists():
            return
        # Here, and not when the copy is read: what is mended must be the run's own file, or it comes back with a copy.
        RoundStore(source).check()
        with writing(destination):
            base_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                prefix=f"{PARTIAL}rounds-", dir=base_dir, ignore_cleanup_errors=True
            ) as temporary:
                shutil.copytree(source, Path(temporary) / "rounds", ignore=shutil.ignore_patterns(f"{PARTIAL}*"))
                os.replace(Path(temporary) / "rounds", destination)
