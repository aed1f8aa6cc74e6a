"""A process with its log: progress, failure, and what it inherits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from closeup_ns.bench import process
from closeup_ns.bench.process import percentage, run_training, tail
from closeup_ns.errors import CloseupError


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "POLL_SECONDS", 0.02)


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


def test_progress_is_told_and_ends_at_a_hundred(tmp_path: Path) -> None:
    told: list[float] = []
    run_training([sys.executable, "-c", "print('4 (50.00%)')"], tmp_path / "log", 1, told.append)
    assert told[-1] == 100.0


def test_only_the_given_descriptors_are_inherited(tmp_path: Path) -> None:
    kept, other = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("kept", "other"))
    try:
        code = f"import os; os.fstat({kept})\ntry: os.fstat({other})\nexcept OSError: print('closed')"
        run_training([sys.executable, "-c", code], tmp_path / "log", 1, inherited=(kept,))
        assert (tmp_path / "log").read_text().strip() == "closed"
    finally:
        os.close(kept)
        os.close(other)


def test_an_interrupted_caller_takes_the_process_with_it(tmp_path: Path) -> None:
    def interrupt(percent: float) -> None:
        if (tmp_path / "log").read_text():
            raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run_training([sys.executable, "-c", code], tmp_path / "log", 1, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)
