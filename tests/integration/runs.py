"""Tiny runs of `ns-train`: its arguments, and what a run's folder holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SCHEDULE = {
    "pipeline.schedule.base-steps": 60,
    "pipeline.schedule.rounds": 2,
    "pipeline.schedule.round-steps": 12,
}
SMALL = {
    "vis": "tensorboard",
    "pipeline.refiner.kind": "reliable",
    "pipeline.planner.anchors": 2,
    "pipeline.planner.updates": 2,
    "pipeline.planner.candidates": 12,
    "pipeline.model.num-random": 2000,
    "pipeline.model.num-downscales": 0,
    "pipeline.model.warmup-length": 10,
    "pipeline.model.refine-every": 10,
    "pipeline.model.densify-grad-thresh": 0.0001,
}
METHOD = "closeup-gs-quick"
ROUNDS, PLANNED = 2, 4
"""Rounds of a run, and views that each of them refines: two to-be-updated views and two frontier views."""


def train_arguments(
    data: Path, output: Path, timestamp: str = "t", method: str = METHOD, **changes: object
) -> list[str]:
    """Arguments of `ns-train` for a run that takes seconds; in ``changes`` two underscores stand for a dot."""
    named = {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    options = {"data": data, "output-dir": output, "experiment-name": "e", "timestamp": timestamp, **SCHEDULE, **SMALL}
    arguments = [method]
    for name, value in {**options, **named}.items():
        arguments += [f"--{name}", *shlex.split(str(value))]
    return arguments


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of the last change of every file below a folder; locks left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    @property
    def models(self) -> Path:
        return self.folder / "nerfstudio_models"

    @property
    def rounds(self) -> Path:
        return self.folder / "rounds"

    def checkpoints(self) -> list[Path]:
        return sorted(self.models.glob("step-*.ckpt"))

    def state(self, path: Path | None = None) -> dict[str, Any]:
        """A checkpoint, by default the latest."""
        return torch.load(path or self.checkpoints()[-1], map_location="cpu", weights_only=True)

    def model(self) -> dict[str, torch.Tensor]:
        """The tensors of the latest checkpoint's model."""
        return {k: v for k, v in self.state()["pipeline"].items() if k.startswith("_model.")}

    def json(self, *parts: str) -> dict[str, Any]:
        return json.loads(self.rounds.joinpath(*parts).read_text())

    def decided(self) -> dict[str, bytes]:
        """The files that a resumed run must not decide again: targets, plans, verdicts and refined views."""
        patterns = ("run.json", "targets.json", "round_*/plan.json", "round_*/verdict.json", "round_*/views/*.json",
                    "round_*/exact/*.npz", "round_*/images/*.png")  # fmt: skip
        found = (path for pattern in patterns for path in self.rounds.glob(pattern))
        files = sorted(path for path in found if not path.name.startswith("."))  # a kill leaves half-written files
        return {str(path.relative_to(self.rounds)): path.read_bytes() for path in files}

    def stamps(self) -> dict[str, int]:
        """When each of those files was last written."""
        return {name: (self.rounds / name).stat().st_mtime_ns for name in self.decided()}


def run_of(output: Path, timestamp: str = "t", method: str = METHOD) -> Run:
    """The run that ``train_arguments(output=..., timestamp=..., method=...)`` makes."""
    return Run(output / "e" / method / timestamp)
