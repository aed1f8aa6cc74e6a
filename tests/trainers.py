"""A tiny capture, written once, and trainers on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from closeup_ns.studio.trainer import CloseupTrainer
from tests.integration.captures import write_transforms
from tests.tiny import tiny_trainer

MakeTrainer = Callable[..., CloseupTrainer]


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transforms.json folder: ten photographs to train on, two to evaluate."""
    folder = tmp_path_factory.mktemp("capture")
    write_transforms(folder)
    return folder


@pytest.fixture
def make_trainer(capture: Path, tmp_path: Path) -> Iterator[MakeTrainer]:
    """``make_trainer(**changes)``: see `tests.tiny.tiny_config`."""

    def make(**changes: Any) -> CloseupTrainer:
        return tiny_trainer(changes.pop("data", capture), changes.pop("output", tmp_path / "outputs"), **changes)

    yield make
    from nerfstudio.utils import writer  # not at the top: imported before nerfstudio's configs it fails on itself

    writer.EVENT_WRITERS.clear()


@pytest.fixture
def trainer(make_trainer: MakeTrainer) -> CloseupTrainer:
    """A trainer with the tests' own defaults."""
    return make_trainer()
