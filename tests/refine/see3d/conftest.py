"""Tiny random weights, and a loader that expects their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from closeup_ns.refine.see3d import unet
from tests.refine.see3d.tiny import TINY_CONFIG, write_tiny_weights


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the published layout. Nobody changes it."""
    return write_tiny_weights(tmp_path_factory.mktemp("tiny"), torch.Generator().manual_seed(0))


@pytest.fixture
def tiny_weights(tiny_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where the loader expects networks of their sizes."""
    monkeypatch.setattr(unet, "CONFIG", TINY_CONFIG)
    return tiny_files
