"""An experiment: one method on one scene of a protocol with one seed. Its spec, its folder and its result.

Layout of an experiment's folder, OUT/experiments/PROTOCOL/SCENE/METHOD-seedN::

    status.json   `ExperimentResult`, rewritten at each stage
    run/          what ns-train wrote, and its log
    renders/      NAME.png per camera of the scene
    scores.json   closeup_ns.metrics.scores, with scores.csv and scores.md
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from closeup_ns.atomic import write_json
from closeup_ns.bench.methods import Budget, Method
from closeup_ns.errors import DataError
from closeup_ns.evaluation.evaluate import EvaluationConfig
from closeup_ns.reading import checked, read_json

State = Literal["running", "done", "failed"]
STATUS = "status.json"
SCORES = "scores.json"
RENDERS = "renders"


@dataclass(frozen=True)
class Experiment:
    """What an experiment is to do. JSON-able, so that a process on another machine can be told."""

    protocol: str
    scene: str
    method: Method
    seed: int
    budget: Budget
    quick: bool = False
    """Take the method's smaller sibling."""
    train_options: tuple[str, ...] = ()
    """Further options of ns-train, the same for every experiment."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def folder(self, out: Path) -> Path:
        """Where the experiment is."""
        return out / "experiments" / self.protocol / self.scene / f"{self.method.name}-seed{self.seed}"

    def scene_folder(self, out: Path) -> Path:
        """Where its scene is."""
        return scene_folder(out, self.protocol, self.scene)

    def result(self, out: Path, state: State, error: str = "") -> ExperimentResult:
        """A result with nothing measured yet."""
        return ExperimentResult(
            self.protocol, self.scene, self.method.name, self.method.label, self.seed, state, self.folder(out), error
        )

    def to_json(self) -> str:
        """Everything, as text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Experiment:
        """The inverse of `to_json`. DataError where the text is something else."""
        return checked(
            cls, json.loads(text), "the experiment's spec", "It is of another version's bench: run that again"
        )


def scene_folder(out: Path, protocol: str, scene: str) -> Path:
    """The folder of a prepared scene below ``out``."""
    return out / "scenes" / protocol / scene


@dataclass(frozen=True)
class ExperimentResult:
    """What became of an experiment. Tables are made of these."""

    protocol: str
    scene: str
    method: str
    """Name of the row in methods.yaml."""
    label: str
    """What tables call it."""
    seed: int
    state: State
    folder: Path
    """Holds scores.json and renders/ where ``state`` is done."""
    error: str = ""
    """Why it failed: the last lines of what was printed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of train, render and score, and the CPU time of training (``cpu``); for methods with rounds also plan
    and refine, summed over rounds."""
    steps: int = 0
    """Training steps in total; 0 for a folder of renders."""
    identity: str = ""
    """Checksum of everything that the figures depend on; an experiment with another one is run anew."""

    @property
    def renders(self) -> Path:
        """Pictures, NAME.png per camera of the scene."""
        return self.folder / RENDERS

    @property
    def scores(self) -> Path:
        """scores.json."""
        return self.folder / SCORES

    def write(self) -> None:
        """Write status.json, whole or not at all."""
        content = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(self.folder / STATUS, content)


def read_experiment(folder: Path) -> ExperimentResult:
    """The experiment in ``folder``. DataError where it has no readable status.json."""
    remedy = f"Remove {folder}, and the bench runs it again"
    content = read_json(folder / STATUS, dict[str, Any], remedy)
    return checked(ExperimentResult, {**content, "folder": folder}, folder / STATUS, remedy)


def read_experiments(out: Path) -> list[ExperimentResult]:
    """All of OUT/experiments, by protocol, scene, method and seed; folders that hold none are passed over."""
    found = []
    for path in sorted((out / "experiments").glob(f"*/*/*/{STATUS}")):
        try:
            found.append(read_experiment(path.parent))
        except DataError:
            continue
    return sorted(found, key=lambda one: (one.protocol, one.scene, one.method, one.seed))


def record_failure(result: ExperimentResult) -> ExperimentResult:
    """Write the failure, unless a finished experiment is there or the folder cannot be written."""
    with contextlib.suppress(DataError):
        if read_experiment(result.folder).state == "done":
            return result
    with contextlib.suppress(OSError):
        result.write()
    return result


Watch = Callable[[Experiment, float], None]
"""Told of a running experiment how far it is, 0 to 1."""
