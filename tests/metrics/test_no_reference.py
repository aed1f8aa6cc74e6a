"""MetaIQA's loading (all or nothing) and pyiqa behind a stub: what is missing says why, downloads never happen."""

from __future__ import annotations

import importlib.util
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.metrics.metaiqa import MetaIqaNetwork, load_metaiqa
from closeup_ns.metrics.metric import MetricOptions, MetricUnavailable
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.metrics.weights import sha256_of


@pytest.fixture(scope="module")
def network() -> MetaIqaNetwork:
    torch.manual_seed(0)
    return MetaIqaNetwork().eval()


def saved(state: dict[str, Any], path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("rename", ["module.{}", "net_g.{}", "pyiqa", "params"])
def test_every_published_naming_gives_the_same_score(network: MetaIqaNetwork, tmp_path: Path, rename: str):
    state: dict[str, Any] = dict(network.state_dict())
    if rename == "pyiqa":
        state = {("head." + key[4:] if key.startswith("net.") else key): value for key, value in state.items()}
        state["mean"] = torch.zeros(1, 3, 1, 1)
    elif rename == "params":
        state = {"params": state}
    else:
        state = {rename.format(key): value for key, value in state.items()}
    image = torch.rand(1, 3, 100, 140, generator=torch.Generator().manual_seed(1))
    loaded = load_metaiqa(saved(state, tmp_path / "w.pth")).eval()
    assert torch.equal(loaded(image), network(image))
    assert 0 < float(loaded(image).detach()) < 1


def test_a_head_that_would_stay_random_is_refused(network: MetaIqaNetwork, tmp_path: Path):
    """pyiqa loads such a file without a word and scores with a random head."""
    state = {key.replace("net.", "regressor."): value for key, value in network.state_dict().items()}
    with pytest.raises(MetricUnavailable, match=r"Missing key.*net\."):
        load_metaiqa(saved(state, tmp_path / "w.pth"))
    with pytest.raises(MetricUnavailable, match="extra"):
        load_metaiqa(saved({**network.state_dict(), "extra": torch.zeros(1)}, tmp_path / "w.pth"))
    with pytest.raises(MetricUnavailable, match="not the weights"):
        load_metaiqa(saved({**network.state_dict(), "net.fc1.weight": torch.zeros(2, 2)}, tmp_path / "w.pth"))


def test_whole_pickled_modules_are_never_loaded(network: MetaIqaNetwork, tmp_path: Path):
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(MetricUnavailable, match="cannot be read"):
        load_metaiqa(tmp_path / "whole.pth")


def test_the_render_is_antialiased_before_it_is_scored(network: MetaIqaNetwork):
    """One pixel's shift of a fine checkerboard moves an aliased score, and not this one."""
    checker = ((torch.arange(1001)[:, None] + torch.arange(1001)) % 2).float().expand(1, 3, -1, -1)
    assert torch.allclose(network(checker[..., :-1, :-1]), network(checker[..., :-1, 1:]), atol=1e-4)


def test_metaiqa_by_name(network: MetaIqaNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved(network.state_dict(), tmp_path / "own.pth")
    metrics, _ = build_metrics(["metaiqa"], MetricOptions(weights={"metaiqa": str(path)}))
    image = torch.rand(50, 60, 3, generator=torch.Generator().manual_seed(2))
    assert metrics[0](image) == pytest.approx(float(network(image.permute(2, 0, 1)[None]).detach()))
    assert metrics[0].provenance.sha256 == sha256_of(path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    _, missing = build_metrics(["metaiqa"], MetricOptions())
    assert "Metaiqa_livec.pth" in missing["metaiqa"]


class StubModel:
    """What pyiqa's create_metric returns, as far as it is used."""

    lower_better, score_range = True, "0, 100"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1] == 3 and images.min() >= 0 and images.max() <= 1
        return images.mean()


@pytest.fixture
def stub_pyiqa(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """A pyiqa whose niqe reads a file, and whose clipiqa+ fetches one by itself."""
    weights = tmp_path / "niqe.mat"
    torch.save({}, weights)
    package, configs, utils, downloads = (
        types.ModuleType(f"pyiqa{name}") for name in ("", ".default_model_configs", ".utils", ".utils.download_util")
    )
    modes = {"niqe": "NR", "clipiqa+": "NR", "ssim": "FR"}
    configs.DEFAULT_CONFIGS = {name: {"metric_mode": mode} for name, mode in modes.items()}  # type: ignore[attr-defined]
    downloads.download_url_to_file = lambda *a, **k: pytest.fail("a download")  # type: ignore[attr-defined]

    def create_metric(name: str, device: str, **options: Any) -> StubModel:
        if name == "clipiqa+":
            urllib.request.urlopen("https://example.org/clip.pt")
        torch.load(weights, weights_only=True)
        return StubModel()

    package.create_metric, package.__version__, package.utils = create_metric, "9.9", utils  # type: ignore[attr-defined]
    utils.download_util = downloads  # type: ignore[attr-defined]
    for module in (package, configs, utils, downloads):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return package


def test_a_metric_of_pyiqa_is_built_scored_and_its_weights_named(stub_pyiqa: types.ModuleType):
    metrics, missing = build_metrics(["niqe", "clipiqa+"], MetricOptions())
    assert "https://example.org/clip.pt is not cached" in missing["clipiqa+"]
    assert len(metrics) == 1 and metrics[0](torch.full((20, 30, 3), 0.25)) == pytest.approx(0.25)
    assert metrics[0].higher_is_better is False
    assert metrics[0].provenance.weights == "niqe.mat" and len(metrics[0].provenance.sha256) == 64
    assert torch.load.__name__ == "load"  # the watch is over


def test_full_reference_metrics_of_pyiqa_are_not_taken_for_others(stub_pyiqa: types.ModuleType):
    _, missing = build_metrics(["pyiqa:ssim", "pyiqa:nothing"], MetricOptions())
    assert "no no-reference metric" in missing["pyiqa:ssim"]
    assert "'nothing'" in missing["pyiqa:nothing"]


def test_without_pyiqa_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    _, missing = build_metrics(["niqe"], MetricOptions())
    assert "pip install" in missing["niqe"] and "pyiqa" in missing["niqe"]


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is None, reason="pyiqa is not installed")
def test_the_real_pyiqa_is_kept_from_downloading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import pyiqa.utils.download_util as downloads  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(downloads, "DEFAULT_CACHE_DIR", str(tmp_path))
    _, missing = build_metrics(["niqe", "musiq"], MetricOptions())
    assert "is not cached" in missing["niqe"] and "musiq" in missing["musiq"]
