"""Choosing a refiner: from the command line, and never before it is needed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import pytest
import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import CommandRefinerConfig, EnhanceConfig, RefinerConfig, See3DRefinerConfig
from closeup_ns.refine.refiner import build_refiner, check_refiner
from closeup_ns.refine.see3d import weights
from tests.refine.scene import request_of, solid


@pytest.mark.parametrize(
    ("device", "reason", "kind", "why"),
    [
        ("cuda", None, "see3d", "a GPU and the weights are here"),
        ("cuda", "no weights", "none", "not see3d, since no weights"),
        ("cpu", None, "none", "hours without"),
    ],
)
def test_auto_takes_see3d_on_a_gpu_that_has_its_weights(
    monkeypatch: pytest.MonkeyPatch, device: str, reason: str | None, kind: str, why: str
) -> None:
    monkeypatch.setattr(weights, "why_not", lambda source, unet: reason)
    _, line = build_refiner(RefinerConfig(), device)
    assert line.startswith(f"refiner: {kind}") and why in line and "\n" not in line


RUN = f"{sys.executable} fix.py {{input}} {{output}}"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RefinerConfig("see3d"), "the refiner see3d cannot run here: no sparse in bruiiii/See3D"),
        (RefinerConfig("see3d", See3DRefinerConfig("FOLDER")), "no sparse in FOLDER"),
        (RefinerConfig("see3d", See3DRefinerConfig(frames=1)), "frames is 1"),
        (RefinerConfig("command"), "the refiner command cannot run here: --pipeline.refiner.command.run is empty"),
        (
            RefinerConfig("reliable", enhance=EnhanceConfig("see3d-sr")),
            "the enhancer see3d-sr cannot run here: no SR in bruiiii/See3D",
        ),
        (RefinerConfig("auto", enhance=EnhanceConfig("command", RUN)), "command has no refined views to sharpen"),
        (
            RefinerConfig("reliable", enhance=EnhanceConfig("command")),
            "the enhancer command cannot run here: --pipeline.refiner.enhance.run is empty",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, config: RefinerConfig, message: str
) -> None:
    monkeypatch.setattr(weights, "why_not", lambda source, unet: f"no {unet} in {source}")
    with pytest.raises(RefinerError, match=message):
        check_refiner(config, "cpu")


def test_what_can_run_is_not_refused() -> None:
    for kind in ("auto", "reliable", "none"):
        check_refiner(RefinerConfig(kind=cast(Any, kind)), "cpu")
    run = CommandRefinerConfig(RUN)
    check_refiner(RefinerConfig("command", command=run, enhance=EnhanceConfig("command", RUN)), "cpu")


def test_no_refiner_imports_anything_heavy_before_it_refines() -> None:
    """ns-viewer, ns-eval and ns-render ask a refiner whether it generates; they need none of its packages."""
    program = """
import sys
from closeup_ns.refine.refiner import build_refiner
from closeup_ns.refine.options import EnhanceConfig, RefinerConfig
assert not [name for name in sys.modules if name.startswith("closeup_ns.refine.see3d.")]
for kind in ("auto", "reliable", "see3d", "command", "none"):
    for enhancer in ("none", "see3d-sr", "command"):
        refiner, _ = build_refiner(RefinerConfig(kind=kind, enhance=EnhanceConfig(enhancer)), "cpu")
        assert refiner.generates == (kind in ("see3d", "command") or enhancer != "none"), (kind, enhancer)
print(sorted({"diffusers", "transformers", "accelerate", "huggingface_hub"} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert ended.stdout.strip() == "[]", ended.stdout + ended.stderr


def test_no_refinement_claims_nothing(generator: torch.Generator) -> None:
    color = torch.rand(6, 8, 3, generator=generator) + 0.2
    refiner, _ = build_refiner(RefinerConfig(kind="none"), "cpu")
    (refined,) = refiner.refine(request_of([solid(color)]))
    assert torch.equal(refined.image, color.clamp(0, 1))
    assert not refined.real.any()
    assert not refined.weight.any()
