"""Upstream's breakages stay mended."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.image.lpip as torchmetrics_lpip
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

import closeup_ns.method_config  # noqa: F401  (allows the checkpoints)
from closeup_ns.studio import compatibility as compat
from closeup_ns.studio.compatibility import LazyLpips, lazy_lpips


def test_a_checkpoint_with_nerfstudios_numpy_scalars_is_read(tmp_path: Path) -> None:
    """Made as nerfstudio makes it: its exponential decay leaves a numpy scalar in the state."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.01)
    scheduler = ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=10).setup().get_scheduler(optimizer, 0.01)
    optimizer.step()
    scheduler.step()
    state = {
        "schedulers": {"means": scheduler.state_dict()},
        "optimizers": optimizer.state_dict(),
        "x": np.float64(0.5),
    }
    torch.save(state, tmp_path / "step.ckpt")
    loaded = torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert loaded["x"] == 0.5
    assert loaded["schedulers"]["means"]["last_epoch"] == 1


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code from a checkpoint ran",))


def test_nothing_else_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.ckpt", weights_only=True)
    assert capsys.readouterr().out == ""


IMAGES = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)


def test_lpips_is_built_without_its_weights_and_says_why_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[dict[str, Any]] = []

    def offline(**options: Any) -> None:
        tries.append(options)
        raise OSError("no network")

    monkeypatch.setattr(compat, "_real_lpips", offline)
    metric = LazyLpips(normalize=True)
    assert tries == [] and metric.missing is None
    assert all(torch.isnan(metric(*IMAGES)) for _ in range(2))
    assert tries == [{"normalize": True}]  # it does not try again for each image
    assert metric.missing is not None and "no network" in metric.missing
    assert not metric.state_dict()


def test_lpips_with_weights_is_loaded_once_and_kept_out_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.nn.Module] = []

    class Network(torch.nn.Linear):
        def __init__(self, **_: Any) -> None:
            super().__init__(1, 1)
            built.append(self)

        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (prediction - target).abs().mean()

    monkeypatch.setattr(compat, "_real_lpips", Network)
    metric = LazyLpips()
    assert float(metric(*IMAGES)) == float(metric(*IMAGES)) > 0
    assert len(built) == 1 and not metric.state_dict() and not list(metric.parameters())


def test_the_replacement_ends_with_its_block() -> None:
    real = torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity
    with lazy_lpips():
        assert torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity is LazyLpips
    assert torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity is real

    def fails() -> None:
        with lazy_lpips():
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        fails()
    assert torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity is real
