"""ns-train in a process of its own: its output in a log, its progress read off that log, its failure as an error."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from closeup_ns.errors import CloseupError

TAIL_LINES = 15
"""Lines of a failed process's log that its error shows."""


@contextmanager
def started(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """A process with its output in ``log``, which is overwritten. It ends with the block, whatever ends that."""
    with open(log, "w", encoding="utf8") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def run_training(command: Sequence[str], log: Path, threads: int) -> float:
    """Run ns-train, ``command`` being the whole command line, with its output in ``log``.

    Args:
        threads: OMP_NUM_THREADS, unless the environment says another number.

    Returns:
        Its CPU time in seconds, of all its threads and processes.

    Raises:
        CloseupError: it failed; the message carries the end of its log.
    """
    quiet = {"OMP_WAIT_POLICY": "passive", "TORCH_COMPILE_DISABLE": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "160"}
    quiet["OMP_NUM_THREADS"] = str(threads)
    before = _children_cpu()
    with started(command, log, {**quiet, **os.environ}) as process:
        process.wait()
    if process.returncode != 0:
        raise CloseupError(
            f"ns-train failed with exit code {process.returncode}; all of its output is in {log}, the end is:\n"
            + tail(log)
        )
    return _children_cpu() - before


def _children_cpu() -> float:
    """CPU time in seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def percentage(log: Path) -> float:
    """The last percentage in nerfstudio's table of steps, looked for in the end of its log; 0 where there is none."""
    found = re.findall(rb"\((\d+\.\d+)%\)", _end(log))
    return float(found[-1]) if found else 0.0


def _end(log: Path) -> bytes:
    """The last bytes of a log; none where it cannot be read."""
    try:
        with open(log, "rb") as written:
            written.seek(max(0, log.stat().st_size - 4000))
            return written.read()
    except OSError:
        return b""


def leave(number: int, frame: object) -> None:
    """A handler of SIGTERM (of a batch system, say): ends the processes that were started too, as Ctrl-C does."""
    raise SystemExit(128 + number)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty where it cannot be read."""
    try:
        return "\n".join(log.read_text(encoding="utf8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
