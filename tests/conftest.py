"""Shared by all tests: quiet, offline, deterministic; and where the real photographs are."""

from __future__ import annotations

import os

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from pathlib import Path

import pytest
import torch


def shared_data(*parts: str) -> Path:
    """A path below the folder of real photographs, or a skip with the reason where it is absent."""
    root = Path(os.environ.get("CLOSEUP_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real photographs are not here: {path} (set CLOSEUP_SHARED_DATA)")
    return path


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, so that a failing test fails again."""
    return torch.Generator().manual_seed(0)
