"""ns-train in a process of its own: its output in a log, its progress read off that log, its failure as an error."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from closeup_ns.errors import CloseupError

POLL_SECONDS = 1.0
"""How often a training's log is looked at: watching took a quarter of a core from the trainings at 0.25."""
TAIL_LINES = 15
"""Lines of a failed process's log that its error shows."""


def run_training(
    command: Sequence[str],
    log: Path,
    threads: int,
    progress: Callable[[float], None] = lambda percent: None,
    inherited: Sequence[int] = (),
) -> None:
    """Run ns-train on ``threads`` threads with its output in ``log``. It ends with this call, whatever ends it.

    Args:
        command: the whole command line.
        log: file for what it prints; overwritten.
        threads: OMP_NUM_THREADS, unless the environment says another number.
        progress: called about once a second with the percentage that nerfstudio prints.
        inherited: file descriptors that the process keeps open.

    Raises:
        CloseupError: it failed; the message carries the end of its log.
    """
    quiet = {"OMP_WAIT_POLICY": "passive", "TORCH_COMPILE_DISABLE": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    quiet["OMP_NUM_THREADS"] = str(threads)
    with open(log, "w", encoding="utf8") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, env={**quiet, **os.environ}, pass_fds=inherited
        )
        try:
            while process.poll() is None:
                progress(percentage(log))
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    progress(100.0)
    if process.returncode != 0:
        raise CloseupError(
            f"ns-train failed with exit code {process.returncode}; all of its output is in {log}, the end is:\n"
            + tail(log)
        )


def percentage(log: Path) -> float:
    """The last percentage in nerfstudio's table of steps, looked for in the end of its log; 0 where there is none."""
    try:
        with open(log, "rb") as written:
            written.seek(max(0, log.stat().st_size - 4000))
            found = re.findall(rb"\((\d+\.\d+)%\)", written.read())
    except OSError:
        return 0.0
    return float(found[-1]) if found else 0.0


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty where it cannot be read."""
    try:
        return "\n".join(log.read_text(encoding="utf8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
