"""Tiny random weights, and a loader that expects their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from closeup_ns.refine.see3d import unet, weights
from closeup_ns.refine.see3d.loading import load_pipeline
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from tests.refine.see3d.tiny import TINY_CONFIG, seeded, write_tiny_weights

Load = Callable[..., See3DPipeline]


@pytest.fixture(scope="package")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in the published layout, which nobody changes; the loader expects networks of its sizes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unet, "CONFIG", TINY_CONFIG)
        yield write_tiny_weights(tmp_path_factory.mktemp("tiny"), seeded())


@pytest.fixture
def load(tiny_weights: Path) -> Load:
    """See3D's pipeline from those files, by the real loader: for a network's name and a type of numbers."""
    return lambda name="sparse", dtype=torch.float32: load_pipeline(
        tiny_weights / weights.BELOW, name, dtype, torch.device("cpu")
    )


@pytest.fixture(scope="package")
def pipeline(tiny_weights: Path) -> See3DPipeline:
    """One of them, which nobody changes."""
    return load_pipeline(tiny_weights / weights.BELOW, "sparse", torch.float32, torch.device("cpu"))
