"""LPIPS from a local file in torchvision's layout, with random weights: the loading, not the perception."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from closeup_ns.metrics.metric import MetricOptions
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.metrics.weights import sha256_of


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    features = torchvision.models.alexnet(weights=None).features
    torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, path)
    return path


def test_weights_from_a_file_are_really_used(alexnet: Path):
    from torchmetrics.functional.image.lpips import _LPIPS

    metrics, missing = build_metrics(["lpips_alex"], MetricOptions(weights={"lpips_alex": str(alexnet)}))
    assert not missing
    expected = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    state = torch.load(alexnet, weights_only=True)
    for name, parameter in expected.net.named_parameters():
        parameter.data.copy_(state["features." + name.split(".", 1)[1]])
    first, second = torch.rand(2, 64, 80, 3, generator=torch.Generator().manual_seed(1))
    pair = [(2 * image - 1).permute(2, 0, 1)[None] for image in (first, second)]
    assert metrics[0](first, second) == pytest.approx(float(expected(*pair)), rel=1e-5)
    assert metrics[0](first, first) == 0.0
    assert metrics[0].provenance.sha256 == sha256_of(alexnet) and metrics[0].provenance.backbone == "alex"


def test_without_weights_it_is_missing_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    metrics, missing = build_metrics(["lpips_vgg", "lpips_alex"], MetricOptions())
    assert not metrics and "vgg16-397923af.pth" in missing["lpips_vgg"]
    assert "allow the download" in missing["lpips_alex"]


def test_a_file_of_another_network_or_a_broken_one_is_named(alexnet: Path, tmp_path: Path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    options = MetricOptions(weights={"lpips_vgg": str(alexnet), "lpips_alex": str(broken)})
    metrics, missing = build_metrics(["lpips_vgg", "lpips_alex"], options)
    assert not metrics
    assert "not the weights of lpips_vgg" in missing["lpips_vgg"]
    assert "cannot be read" in missing["lpips_alex"] and "broken.pth" in missing["lpips_alex"]
    _, missing = build_metrics(["lpips_vgg"], MetricOptions(weights={"lpips_vgg": str(tmp_path / "absent.pth")}))
    assert "absent.pth" in missing["lpips_vgg"]
