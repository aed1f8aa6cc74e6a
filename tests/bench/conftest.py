"""A stand-in for ns-train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench.stand_in import TRAINER, put_in_pythons_place, render_grey


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Callable[[], list[list[str]]]]:
    """Puts a script in ns-train's place, and grey pictures in its model's; gives what tells its command lines.

    What is given to it runs after the checkpoint is written.
    """

    def install(after_checkpoint: str = "") -> Callable[[], list[list[str]]]:
        calls = tmp_path / "calls.jsonl"
        script = TRAINER.replace("CALLS", repr(str(calls))).replace("AFTER_CHECKPOINT", after_checkpoint)
        put_in_pythons_place(script, monkeypatch, tmp_path)
        monkeypatch.setattr("closeup_ns.evaluation.run.open_run", lambda config: SimpleNamespace(render=render_grey))
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return install
