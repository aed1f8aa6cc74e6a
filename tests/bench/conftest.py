"""A stand-in for ns-train."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.bench.stand_in import install_trainer


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Callable[[], list[list[str]]]]:
    """Puts a script in ns-train's place for this test; what is given to it runs after the checkpoint is written."""
    return partial(install_trainer, monkeypatch, tmp_path)
