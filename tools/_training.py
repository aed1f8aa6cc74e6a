"""The demo scene trained through nerfstudio's own commands, each in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from closeup_ns.data.demo.scene import write_demo_scene
from tools._process import run_logged
from tools._report import CheckFailed, Figures, Skipped

_SURFEL_METHOD = "closeup-gs-2dgs"
_EXPERIMENT = "gpu-check"
_TINY_OPTIONS = {
    "planner.anchors": "2", "planner.updates": "2", "planner.candidates": "12",
    "model.num-random": "2000", "model.num-downscales": "0", "model.warmup-length": "10", "model.refine-every": "10",
}  # fmt: skip
"""Options of the pipeline for a run of seconds on the CPU."""
_LEAST_PSNR = 12.0
"""dB on held-out photographs; an untrained or broken model stays below."""
_MOST_PSNR_GAP = 0.3
"""dB between the evaluations of one checkpoint on the GPU and on the CPU: gsplat's truncation, and nothing more."""


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and how long."""

    folder: Path
    """For the scene, the runs and the logs."""
    device: str
    """cuda or cpu."""
    base_steps: int
    round_steps: int
    tiny: bool
    """The smallest scene and model that still pass through everything."""

    @property
    def scene(self) -> Path:
        return self.folder / "scene"

    def run_folder(self, method: str) -> Path:
        """Where nerfstudio puts a run."""
        return self.folder / "runs" / _EXPERIMENT / method / self.device

    def command(self, method: str) -> list[str]:
        """The ns-train command line: one round after the base.

        The target is left to the cameras: so early, a click may well hit nothing solid.
        """
        pipeline = {
            "schedule.base-steps": str(self.base_steps), "schedule.rounds": "1", "refiner.kind": "reliable",
            "schedule.round-steps": str(self.round_steps),
            **(_TINY_OPTIONS if self.tiny else {}),
        }  # fmt: skip
        command = [sys.executable, "-m", "nerfstudio.scripts.train", method, "--data", str(self.scene / "capture")]
        command += ["--output-dir", str(self.folder / "runs"), "--experiment-name", _EXPERIMENT]
        command += ["--timestamp", self.device, "--vis", "tensorboard", "--machine.device-type", self.device]
        for name, value in pipeline.items():
            command += [f"--pipeline.{name}", *value.split()]
        return command


def methods() -> list[str]:
    """closeup-gs-quick, and the surfels' method where it is registered."""
    registered = {entry.name for entry in metadata.entry_points(group="nerfstudio.method_configs")}
    return ["closeup-gs-quick", *([_SURFEL_METHOD] if _SURFEL_METHOD in registered else [])]


def make_scene(plan: TrainingPlan) -> Figures:
    """Render the demo scene unless it is there: small for a tiny plan, else as `closeup-gs demo` has it, 24 photos."""
    if not (plan.scene / "demo.json").is_file():
        size, count, close = ((96, 72), 16, 1) if plan.tiny else ((512, 384), 24, 1)
        write_demo_scene(
            plan.scene, seed=0, far_count=count, size=size, closeups_per_scale=close,
            light_samples=4 if plan.tiny else 144,
        )  # fmt: skip
    return {"photos": len(list((plan.scene / "capture" / "images").iterdir()))}


def train(plan: TrainingPlan, method: str, seconds: float) -> Figures:
    """Run ns-train. CheckFailed where it fails, takes longer, or leaves no round behind."""
    if not (plan.scene / "demo.json").is_file():
        raise Skipped("there is no scene")
    # What an earlier check left is not to be gone on with.
    shutil.rmtree(plan.run_folder(method), ignore_errors=True)
    memory = _DeviceMemory(plan.device)
    log = plan.folder / f"train-{method}.log"
    took = run_logged(plan.command(method), log, seconds, watch=memory.look)
    figures: dict[str, float | int | str] = {"steps": plan.base_steps + plan.round_steps, "seconds": took}
    figures |= {"step_ms": step_milliseconds(log), **memory.figures()}
    report = plan.run_folder(method) / "rounds" / "round_1" / "report.json"
    if not report.is_file():
        raise CheckFailed(f"ns-train ended well, but there is no {report}", figures)
    content = json.loads(report.read_text(encoding="utf8"))
    return {**figures, "gaussians": content["gaussians"]}


def evaluate(plan: TrainingPlan, method: str, seconds: float, on_cpu: bool) -> Figures:
    """Run ns-eval on the held-out photographs, on the run's device or with every GPU hidden."""
    config = plan.run_folder(method) / "config.yml"
    if not config.is_file():
        raise Skipped(f"{method} left no run")
    name = f"eval-{method}-{'cpu' if on_cpu else plan.device}"
    output = plan.folder / f"{name}.json"
    command = [sys.executable, "-m", "nerfstudio.scripts.eval", "--load-config", str(config)]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {}
    run_logged([*command, "--output-path", str(output)], plan.folder / f"{name}.log", seconds, hidden)
    results = json.loads(output.read_text(encoding="utf8"))["results"]
    figures = {"psnr": float(results["psnr"]), "ssim": float(results["ssim"])}
    if not figures["psnr"] > _LEAST_PSNR:
        raise CheckFailed(f"PSNR {figures['psnr']:.2f} dB, more than {_LEAST_PSNR:.0f} demanded", figures)
    return figures


def evaluate_on_both(plan: TrainingPlan, method: str, seconds: float, on_device: Figures) -> Figures:
    """`evaluate` on the CPU, whose PSNR must be that of ``on_device``: the pipeline's parity from end to end."""
    if "psnr" not in on_device:
        raise Skipped("there is nothing to compare with")
    figures = dict(evaluate(plan, method, seconds, on_cpu=True))
    gap = abs(float(figures["psnr"]) - float(on_device["psnr"]))
    figures["gap_db"] = gap
    if not gap <= _MOST_PSNR_GAP:
        raise CheckFailed(f"PSNR differs by {gap:.2f} dB, at most {_MOST_PSNR_GAP} demanded", figures)
    return figures


def step_milliseconds(log: Path) -> float:
    """The last time of a step in nerfstudio's table, NaN where none is."""
    text = log.read_text(encoding="utf8", errors="replace")
    found = re.findall(r"\(\d+\.\d+%\)\s+(?:(\d+) s, )?(\d+(?:\.\d+)?) ms", text)
    return 1e3 * int(found[-1][0] or 0) + float(found[-1][1]) if found else float("nan")


class _DeviceMemory:
    """The most GPU memory in use while something runs, beyond what was in use before."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device == "cuda"
        self.before = self.most = self._used()

    def _used(self) -> int:
        if not self.on_gpu:
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free

    def look(self) -> None:
        """Take note of what is in use now."""
        self.most = max(self.most, self._used())

    def figures(self) -> Figures:
        """In MB; nothing on the CPU."""
        return {"gpu_peak_mb": round((self.most - self.before) / 2**20)} if self.on_gpu else {}
