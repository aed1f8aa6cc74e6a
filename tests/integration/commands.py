"""nerfstudio's commands as processes: started anew, or forked from one that has imported nerfstudio already.

A start costs 8 s of imports. The commands that must prove that they can be started are (``command``); the many others
are forked (``fork``), which runs the same entry points with the same arguments.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

ENTRY_POINTS = {
    "ns-train": "nerfstudio.scripts.train:entrypoint",
    "ns-eval": "nerfstudio.scripts.eval:entrypoint",
    "ns-export": "nerfstudio.scripts.exporter:entrypoint",
    "ns-render": "nerfstudio.scripts.render:entrypoint",
    "ns-viewer": "nerfstudio.scripts.viewer.run_viewer:entrypoint",
    "closeup-gs": "closeup_ns.cli.main:main",
    "small-train": "tests.integration.watched:train_small",
    "small-refine": "tests.integration.watched:refine_small",
    "watched-train": "tests.integration.watched:train",
    "killed-train": "tests.integration.watched:train_killed",
}
TIMEOUT = 900.0

_context = multiprocessing.get_context("forkserver")


@dataclass
class Finished:
    """A process that ended."""

    code: int | None
    output: str

    @property
    def text(self) -> str:
        """The output as one line: consoles wrap words where they like."""
        return " ".join(self.output.split())


QUIET = {
    "TORCH_COMPILE_DISABLE": "1",
    "OMP_WAIT_POLICY": "passive",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
    "TERM": "dumb",
    "WANDB_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
}


def environment() -> dict[str, str]:
    """Offline, quiet, a wide terminal, one thread."""
    return {**os.environ, **QUIET}


def executable(name: str) -> str:
    """The console script of this environment."""
    return str(Path(sys.executable).parent / name)


def require_open3d() -> None:
    """Skip the test where ns-export cannot import it."""
    try:
        importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        pytest.skip(f"ns-export imports open3d, which cannot be loaded here (apt-get install libusb-1.0-0): {error}")


def command(name: str, *arguments: object, cwd: Path) -> Finished:
    """Start a console script as a user does, and wait for it."""
    call = [executable(name), *map(str, arguments)]
    finished = subprocess.run(call, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=TIMEOUT)
    return Finished(finished.returncode, finished.stdout + finished.stderr)


def fork(name: str, *arguments: object, cwd: Path) -> Finished:
    """Run a command's entry point in a forked process, and wait for it."""
    with forked(name, *arguments, cwd=cwd) as (process, log):
        process.join(TIMEOUT)
        code = process.exitcode
    return Finished(code, log.read_text(errors="replace"))


@contextmanager
def forked(name: str, *arguments: object, cwd: Path) -> Iterator[tuple[BaseProcess, Path]]:
    """A running command, forked, and the file that gets its output. Killed at the end where it still runs."""
    _context.set_forkserver_preload(["closeup_ns.method_config", "nerfstudio.scripts.train"])
    cwd.mkdir(parents=True, exist_ok=True)
    log = cwd / f"{name}-{len(list(cwd.glob('*.log')))}.log"
    process = _context.Process(target=_run, args=(name, [str(a) for a in arguments], str(cwd), str(log)))
    process.start()
    try:
        yield process, log
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def _run(name: str, arguments: list[str], cwd: str, log: str) -> None:
    """The forked process: the same as the console script, with its output in ``log``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(QUIET)
    os.chdir(cwd)
    sys.argv = [name, *arguments]
    module, function = ENTRY_POINTS[name].split(":")
    try:
        getattr(importlib.import_module(module), function)()
    except Exception:  # multiprocessing would print the traceback
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        raise SystemExit(1) from None
