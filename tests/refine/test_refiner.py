"""Choosing a refiner: from the command line, from a saved config, and never before it is needed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any, cast

import pytest
import torch
import tyro
import yaml

from closeup_ns.errors import CloseupError, RefinerError
from closeup_ns.refine.enhance.options import EnhancerConfig, SDXLConfig
from closeup_ns.refine.none import NoRefiner
from closeup_ns.refine.options import RefinerOptions, See3DRefinerConfig
from closeup_ns.refine.refiner import Refiner, RefinerConfig, RefineRequest, build_refiner, check_refiner
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.reliability import ReliablePixels
from tests.refine.scene import camera


@pytest.mark.parametrize(("kind", "name"), [("auto", "reliable"), ("reliable", "reliable"), ("none", "none")])
def test_build_says_in_one_line_what_and_why(kind: Any, name: str) -> None:
    refiner, line = build_refiner(RefinerConfig(kind=kind), "cpu")
    assert isinstance(refiner, Refiner)
    assert refiner.name == name
    assert not refiner.generates
    assert "\n" not in line
    assert name in line
    assert ("auto" in line) == (kind == "auto")
    refiner.close()


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(CloseupError, match="auto, reliable, see3d, difix, command, none"):
        build_refiner(RefinerConfig(kind=cast(Any, "magic")), "cpu")


@pytest.mark.parametrize(
    ("device", "reason", "kind", "why"),
    [
        ("cuda", None, "see3d", "a GPU and the weights are here"),
        ("cuda", "no weights", "reliable", "not see3d, since no weights"),
        ("cpu", None, "reliable", "hours without"),
    ],
)
def test_auto_takes_see3d_on_a_gpu_that_has_its_weights(
    monkeypatch: pytest.MonkeyPatch, device: str, reason: str | None, kind: str, why: str
) -> None:
    monkeypatch.setattr(See3DRefinerConfig, "why_not", lambda self, device: reason)
    monkeypatch.setattr(RefinerOptions, "setup", lambda self, device: NoRefiner(cast(Any, self), device))
    _, line = build_refiner(RefinerConfig(), device)
    assert line.startswith(f"refiner: {kind}") and why in line and "\n" not in line


def test_what_cannot_run_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(See3DRefinerConfig, "why_not", lambda self, device: "there are no weights in x")
    with pytest.raises(RefinerError, match="the refiner see3d cannot run here: there are no weights in x"):
        check_refiner(RefinerConfig(kind="see3d"), "cpu")
    monkeypatch.setattr(SDXLConfig, "why_not", lambda self, device: "no diffusers")
    with pytest.raises(RefinerError, match="the enhancer sdxl cannot run here: no diffusers"):
        check_refiner(RefinerConfig(kind="reliable", enhance=EnhancerConfig(kind="sdxl")), "cpu")
    for kind in ("auto", "reliable", "none"):
        check_refiner(RefinerConfig(kind=cast(Any, kind)), "cpu")
    for config in (RefinerConfig(kind=cast(Any, "magic")), RefinerConfig(enhance=EnhancerConfig(cast(Any, "magic")))):
        with pytest.raises(CloseupError, match="unknown .* 'magic': choose"):
            check_refiner(config, "cpu")


def test_options_that_contradict_each_other_are_refused_as_early() -> None:
    with pytest.raises(RefinerError, match="frames is 1"):
        check_refiner(RefinerConfig(kind="see3d", see3d=See3DRefinerConfig("tiny", frames=1)), "cpu")


def test_no_refiner_imports_anything_heavy_before_it_refines() -> None:
    """ns-viewer, ns-eval and ns-render ask a refiner whether it generates; they need none of its packages."""
    program = """
import sys
from closeup_ns.refine.refiner import ENHANCERS, KINDS, RefinerConfig, build_refiner
from closeup_ns.refine.enhance.options import EnhancerConfig
for kind in KINDS:
    for enhancer in ENHANCERS:
        refiner, _ = build_refiner(RefinerConfig(kind=kind, enhance=EnhancerConfig(enhancer)), "cpu")
        assert refiner.generates == (kind in ("see3d", "difix", "command") or enhancer != "none"), (kind, enhancer)
print(sorted({"diffusers", "transformers", "accelerate", "huggingface_hub", "nerfstudio"} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr


def test_nothing_is_imported_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("refiner", "reliable", "none"):
        monkeypatch.delitem(sys.modules, f"closeup_ns.refine.{name}", raising=False)
    importlib.import_module("closeup_ns.refine.refiner").RefinerConfig()
    assert "closeup_ns.refine.reliable" not in sys.modules
    assert "closeup_ns.refine.none" not in sys.modules


def test_options_from_the_command_line_and_from_a_saved_config() -> None:
    config = tyro.cli(
        RefinerConfig, args=["--kind", "reliable", "--reliable.feather", "2", "--reliable.iterations", "3"]
    )
    assert (config.kind, config.reliable.feather, config.reliable.iterations) == ("reliable", 2.0, 3)
    assert yaml.load(yaml.dump(config), Loader=yaml.UnsafeLoader) == config


def test_a_saved_config_without_the_newer_options_gets_their_defaults() -> None:
    lines = yaml.dump(RefinerConfig(kind="reliable")).splitlines()
    newer = ("see3d", "difix", "command", "enhance")
    kept, skipping = [], False
    for line in lines:
        if not line.startswith(" "):
            skipping = line.split(":")[0] in newer
        if not skipping:
            kept.append(line)
    assert len(kept) < len(lines)
    config = yaml.load("\n".join(kept), Loader=yaml.UnsafeLoader)
    assert config == RefinerConfig(kind="reliable")


def test_a_request_with_a_render_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="2 views, 1 renders"):
        RefineRequest([camera(0, 0, 0)] * 2, cast(Any, [None]), cast(Any, [None] * 2), [], 0)


def test_no_refinement_claims_nothing(generator: torch.Generator) -> None:
    view = camera(0, 0, 0, 8, 6)
    render = Rendered(torch.rand(6, 8, 3, generator=generator) + 0.2, torch.ones(6, 8), torch.ones(6, 8))
    everything = torch.ones(6, 8, dtype=torch.bool)
    black = torch.zeros(3, 6, 8)
    mask = ReliablePixels(everything, everything, black, black, everything.int(), torch.ones(6, 8))
    refiner, _ = build_refiner(RefinerConfig(kind="none"), "cpu")
    (refined,) = refiner.refine(RefineRequest([view], [render], [mask], [], 0))
    assert torch.equal(refined.image, render.color.clamp(0, 1))
    assert not refined.real.any()
    assert not refined.weight.any()
