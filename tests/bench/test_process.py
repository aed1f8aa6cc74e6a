"""A process with its log: progress, failure, CPU time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from closeup_ns.bench.process import percentage, run_training, tail
from closeup_ns.errors import CloseupError


def test_progress_is_the_last_percentage_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    assert percentage(log) == 0.0
    log.write_text("")
    assert percentage(log) == 0.0
    log.write_text("10 (2.2%)  5 ms\n" * 500 + "90 (20.04%)  5 ms\nsaved\n")
    assert percentage(log) == 20.04


def test_a_failure_carries_the_end_of_the_log(tmp_path: Path) -> None:
    lines = "for i in range(40): print('line', i)\nimport sys; sys.exit('no memory left')"
    with pytest.raises(CloseupError, match="(?s)exit code 1.*line 39.*no memory left") as caught:
        run_training([sys.executable, "-c", lines], tmp_path / "log", 1)
    assert "line 20" not in str(caught.value)
    assert tail(tmp_path / "absent") == ""


def test_the_cpu_time_is_that_of_the_process(tmp_path: Path) -> None:
    """What it says of itself when it ends, but for its start."""
    code = "import time\nwhile time.process_time() < 0.4: pass\nprint(time.process_time())"
    spent = run_training([sys.executable, "-c", code], tmp_path / "log", 1)
    assert 0.4 <= float((tmp_path / "log").read_text()) <= spent + 0.05


def test_an_interrupted_caller_takes_the_process_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.Popen.wait

    def interrupt(self: subprocess.Popen, timeout: float | None = None) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", started)
        while not (tmp_path / "log").read_text():
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run_training([sys.executable, "-c", code], tmp_path / "log", 1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)
