"""One finished run, shared by everything that looks at a run. Never changed: copy it to go on with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.commands import command
from tests.integration.runs import Run, run_of, train_arguments
from tests.trainers import capture

__all__ = ["capture", "copied", "finished"]


@pytest.fixture(scope="session")
def finished(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the real `ns-train`, from start to end, with all its checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = train_arguments(capture, folder, save_only_latest_checkpoint=False, steps_per_save=30)
    ended = command("ns-train", *arguments, cwd=folder)
    assert ended.code == 0, ended.output
    return run_of(folder)


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Run:
    """The finished run at another place, to be changed."""
    shutil.copytree(finished.folder, tmp_path / "copied")
    return Run(tmp_path / "copied")
