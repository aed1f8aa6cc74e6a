"""The demo scene trained on CUDA by nerfstudio's own commands, and evaluated there and on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup_ns.data.demo.scene import write_demo_scene
from tests.gpu.marks import needs_gpu
from tests.integration.commands import command
from tests.integration.runs import Run, run_of

LEAST_PSNR = 12.0
"""dB on held-out photographs; an untrained or broken model stays below."""
MOST_PSNR_GAP = 0.3
"""dB between the evaluations of one checkpoint on the GPU and on the CPU: gsplat's truncation, and nothing more."""


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo scene as `closeup-gs demo` has it, 24 photographs."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo_scene(folder, seed=0, far_count=24, size=(512, 384), closeups_per_scale=1, light_samples=144)
    return folder / "capture"


def evaluated(run: Run, name: str, folder: Path) -> float:
    """PSNR of `ns-eval`, dB."""
    output = folder / f"{name}.json"
    ended = command("ns-eval", "--load-config", run.config, "--output-path", output, cwd=folder)
    assert ended.code == 0, ended.output
    return float(json.loads(output.read_text())["results"]["psnr"])


@needs_gpu
@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("method", ["closeup-gs-quick", "closeup-gs-2dgs"])
def test_a_run_on_cuda_is_the_same_on_the_cpu(
    method: str, capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round after the base; the target is left to the cameras: so early, a click may well hit nothing solid."""
    options = {
        "data": capture, "output-dir": tmp_path, "experiment-name": "e", "timestamp": "t", "vis": "tensorboard",
        "machine.device-type": "cuda", "pipeline.schedule.base-steps": 400, "pipeline.schedule.rounds": 1,
        "pipeline.schedule.round-steps": 100, "pipeline.refiner.kind": "reliable",
    }  # fmt: skip
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    ended = command("ns-train", method, *given, cwd=tmp_path)
    assert ended.code == 0, ended.output
    run = run_of(tmp_path, method=method)
    report = run.json("round_1", "report.json")
    there = evaluated(run, "gpu", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    here = evaluated(run, "cpu", tmp_path)
    print(f"{method}: {report['gaussians']} Gaussians, PSNR {there:.2f} dB on the GPU, {here:.2f} on the CPU")
    assert there > LEAST_PSNR and abs(there - here) <= MOST_PSNR_GAP
