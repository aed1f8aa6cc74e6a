"""LPIPS needs its weights only where it is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics.image.lpip as torchmetrics_lpip

from closeup_ns.model import lazy_lpips as module
from closeup_ns.model.lazy_lpips import LazyLpips, lazy_lpips

IMAGES = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)


def test_lpips_is_built_without_its_weights_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[dict[str, Any]] = []

    def offline(**options: Any) -> None:
        tries.append(options)
        raise OSError("no network")

    monkeypatch.setattr(module, "_real_lpips", offline)
    metric = LazyLpips(normalize=True)
    assert tries == []
    assert all(torch.isnan(metric(*IMAGES)) for _ in range(2))
    assert tries == [{"normalize": True}]  # it does not try again for each image
    assert not metric.state_dict()


def test_lpips_with_weights_is_loaded_once_and_kept_out_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.nn.Module] = []

    class Network(torch.nn.Linear):
        def __init__(self, **_: Any) -> None:
            super().__init__(1, 1)
            built.append(self)

        def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (prediction - target).abs().mean()

    monkeypatch.setattr(module, "_real_lpips", Network)
    metric = LazyLpips()
    assert float(metric(*IMAGES)) == float(metric(*IMAGES)) > 0
    assert len(built) == 1 and not metric.state_dict() and not list(metric.parameters())


def test_the_replacement_ends_with_its_block() -> None:
    real = torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity
    with lazy_lpips():
        assert torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity is LazyLpips
    with pytest.raises(ZeroDivisionError), lazy_lpips():
        _ = 1 / 0
    assert torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity is real
