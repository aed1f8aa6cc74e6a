"""Commands with a time limit, their output in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools._report import CheckFailed

_POLL_SECONDS = 0.25
_OFFLINE = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "WANDB_MODE": "disabled", "TORCH_COMPILE_DISABLE": "1",
    "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1", "COLUMNS": "160", "TERM": "dumb", "MPLBACKEND": "Agg",
}  # fmt: skip


def run_logged(
    command: Sequence[str],
    log: Path,
    seconds: float,
    environment: dict[str, str] | None = None,
    watch: Callable[[], object] = lambda: None,
) -> float:
    """Run a command, offline, with all its output in ``log``, calling ``watch`` now and then. Returns its seconds.

    The command and its children are ended after ``seconds``. CheckFailed where that happened, or where it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with open(log, "w", encoding="utf8") as written:
        process = subprocess.Popen(
            command, stdout=written, stderr=subprocess.STDOUT, env={**os.environ, **_OFFLINE, **(environment or {})},
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None and time.monotonic() - started < seconds:
                watch()
                time.sleep(_POLL_SECONDS)
        finally:
            is_late = process.poll() is None
            if is_late:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if is_late:
        raise CheckFailed(f"ended after {seconds:.0f} s: no more time; its output: {log}")
    if process.returncode != 0:
        raise CheckFailed(f"exit code {process.returncode}: {_telling_line(log)}; its output: {log}")
    return time.monotonic() - started


def _telling_line(log: Path) -> str:
    """The last line that speaks of an error, else the last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf8", errors="replace").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output")
