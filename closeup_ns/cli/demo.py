"""`closeup-gs demo`: render a scene whose close-ups are known, train on its far photographs, and report.

Stages, each skipped when it is already there: the scene, one training per method (nerfstudio's own ns-train in a
process of its own, which is given the capture and nothing else), their renders, the report.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from closeup_ns.atomic import write_json
from closeup_ns.bench.process import POLL_SECONDS, run_training
from closeup_ns.cli.demo_pictures import write_comparisons, write_hero
from closeup_ns.cli.demo_report import (
    BICUBIC,
    TestImage,
    load_tests,
    score,
    table_rows,
    write_bicubic,
    write_renders,
    write_report,
)
from closeup_ns.data.demo_photo import PhotoModel
from closeup_ns.data.demo_scene import write_demo_scene
from closeup_ns.errors import CloseupError, DataError

LABELS = {
    "plain": "splatfacto, antialiased",
    "base": "our base, as many steps",
    "closeup": "closeup-gs",
    BICUBIC: "bicubic bound",
}
"""What the report calls each method."""
_EXPERIMENT = "demo"


@dataclass(frozen=True)
class Training:
    """One run of ns-train."""

    key: str
    """Name in the report, and nerfstudio's "timestamp" folder."""
    method: str
    """Registered nerfstudio method."""
    options: tuple[str, ...] = ()
    """Further options of ns-train."""
    start: Path | None = None
    """Checkpoint of another training that this one starts from; it is waited for."""

    def folder(self, output: Path) -> Path:
        """Where nerfstudio puts the run."""
        return output / "runs" / _EXPERIMENT / self.method / self.key


@dataclass
class Demo:
    """Render a scene with known close-ups, train on its far photographs, compare with the truth."""

    output: Path = Path("outputs/demo")
    """Folder for the scene, the runs, the pictures and report.json."""
    seed: int = 0
    """Seed of the scene."""
    size: tuple[int, int] = (512, 384)
    """Width and height of the photographs, in pixels."""
    far_photos: int = 34
    """Far photographs; every eighth is held out of training."""
    closeups: int = 4
    """True close-ups at each of 3x, 9x and 27x."""
    base_steps: int = 0
    """Steps of the base phase; 0: as closeup-gs-quick has it."""
    rounds: int = -1
    """Close-up rounds; -1: as closeup-gs-quick has it."""
    round_steps: int = 0
    """Steps of each round; 0: as closeup-gs-quick has it."""
    train_options: tuple[str, ...] = field(default_factory=tuple)
    """Further options for every ns-train, as written on its command line, e.g. ``--machine.seed 1``."""
    fresh: bool = False
    """Remove what an earlier demo left in ``output`` and start over."""
    hero: Path | None = None
    """Also write the one wide picture (for the README) here."""

    def main(self) -> dict[str, Any]:
        """Run all stages and print the table. Returns the report as it was written.

        Raises:
            DataError: ``output`` holds a demo of other settings.
            CloseupError: a training failed; the message carries the end of its log.
        """
        if self.fresh:
            self._remove()
        started = time.monotonic()
        self.render_scene()
        seconds = {"scene": time.monotonic() - started}
        configs = self.train_all()
        tests = load_tests(self.scene_folder)  # the truth is looked at when all training is over
        renders = {key: self.output / "renders" / key for key in LABELS}
        for training, config in configs:
            seconds |= json.loads((training.folder(self.output) / "trained.json").read_text(encoding="utf8"))["seconds"]
            self._render_tests(training, config, tests, renders[training.key])
        write_bicubic(tests, PhotoModel(**self._scene_note()["settings"]["photo"]), renders[BICUBIC])
        scores = score(tests, renders)
        about = {
            "scene": self._settings(),
            "steps": dict(zip(("base", "rounds", "round"), self.steps())),
            "seconds": seconds,
        }
        write_report(self.output, scores, LABELS, about)
        write_comparisons(tests, renders, LABELS, self.output / "pictures")
        if self.hero is not None:
            write_hero(tests, renders, LABELS, self._scene_note()["target"], self.hero)
        _print_table(scores, self.output)
        return json.loads((self.output / "report.json").read_text(encoding="utf8"))

    @property
    def scene_folder(self) -> Path:
        """Holds capture/, truth/ and demo.json."""
        return self.output / "scene"

    def steps(self) -> tuple[int, int, int]:
        """Base steps, rounds and steps per round, with closeup-gs-quick's own where none are given."""
        from nerfstudio.configs.method_configs import all_methods

        schedule: Any = all_methods["closeup-gs-quick"].pipeline.schedule  # type: ignore[attr-defined]
        return (
            self.base_steps or schedule.base_steps,
            schedule.rounds if self.rounds < 0 else self.rounds,
            self.round_steps or schedule.round_steps,
        )

    def trainings(self) -> list[Training]:
        """The three runs that are compared, each after what it starts from: all train for as many steps in total."""
        base, rounds, each = self.steps()

        def schedule(base_steps: int, rounds: int) -> tuple[str, ...]:
            names = ("base-steps", "rounds", "round-steps")
            values = (base_steps, rounds, each)
            return tuple(w for n, v in zip(names, values, strict=True) for w in (f"--pipeline.schedule.{n}", str(v)))

        total = base + rounds * each
        keep = ("--save-only-latest-checkpoint", "False")
        closeup = Training("closeup", "closeup-gs-quick", (*schedule(base, rounds), *self._target_option(), *keep))
        # Our base for as many steps is the same base, going on with the photographs where closeup-gs begins its rounds.
        go_on = ("--pipeline.kernel-search.enabled", "False", "--pipeline.model.supersample-from", "0")
        shared = closeup.folder(self.output) / "nerfstudio_models" / f"step-{base - 1:09d}.ckpt"
        return [
            Training("plain", "closeup-splatfacto", schedule(total, 0)),
            closeup,
            Training("base", "closeup-gs-quick", (*schedule(total, 0), *go_on), shared if rounds > 0 else None),
        ]

    def render_scene(self) -> None:
        """Write the scene unless it is there."""
        done = self.scene_folder / "demo.json"
        if done.is_file():
            found = json.loads(done.read_text(encoding="utf8"))["settings"]
            differing = {key for key, value in self._settings().items() if found.get(key) != value}
            if differing:
                raise DataError(
                    f"{self.scene_folder} holds a scene of another {', '.join(sorted(differing))}: "
                    "add --fresh to start over, or choose another --output"
                )
            return
        with _progress() as bar:
            task = bar.add_task("scene", total=None)
            write_demo_scene(
                self.scene_folder,
                self.seed,
                self.far_photos,
                self.size,
                self.closeups,
                progress=lambda count, total, what: bar.update(task, completed=count, total=total, description=what),
            )

    def train_all(self) -> list[tuple[Training, Path]]:
        """Train every method; without a GPU side by side, because steps this small do not fill two cores."""
        trainings = self.trainings()
        cores = os.cpu_count() or 1
        workers = 1 if torch.cuda.is_available() else min(cores, len(trainings))
        threads = max(cores // workers, 1)
        with _progress() as bar, ThreadPoolExecutor(workers) as pool:
            longest_first = sorted(trainings, key=lambda training: training.key != "closeup")
            futures: dict[str, Future[Path]] = {}
            for training in longest_first:
                futures[training.key] = pool.submit(self._train_after, training, futures.get("closeup"), bar, threads)
            return [(training, futures[training.key].result()) for training in trainings]

    def _train_after(self, training: Training, first: Future[Path] | None, bar: Progress, threads: int) -> Path:
        """`train`, once the checkpoint that it starts from is there."""
        while training.start is not None and not training.start.is_file():
            if first is None or first.done():
                raise CloseupError(f"{training.start} is missing: the training that writes it did not get that far")
            time.sleep(POLL_SECONDS)
        return self.train(training, bar, threads)

    def train(self, training: Training, bar: Progress | None = None, threads: int = 1) -> Path:
        """Train unless that is done, going on from the last checkpoint of a run that was killed. Returns config.yml."""
        folder = training.folder(self.output)
        done, config = folder / "trained.json", folder / "config.yml"
        command = self.command(training)
        if done.is_file() and config.is_file():
            if json.loads(done.read_text(encoding="utf8"))["options"] == list(training.options + self.train_options):
                return config
            raise DataError(f"{folder} was trained with other options: add --fresh, or choose another --output")
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        bar = bar or Progress(disable=True)
        task = bar.add_task(f"training {LABELS.get(training.key, training.key)}", total=100.0)
        run_training(command, folder / "train.log", threads, lambda percent: bar.update(task, completed=percent))
        seconds = {training.key: time.monotonic() - started}
        write_json(done, {"options": list(training.options + self.train_options), "seconds": seconds})
        return config

    def command(self, training: Training) -> list[str]:
        """The ns-train command line. It names the capture and nothing of the truth."""
        command = [sys.executable, "-m", "nerfstudio.scripts.train", training.method]
        command += ["--data", str(self.scene_folder / "capture"), "--output-dir", str(self.output / "runs")]
        command += ["--experiment-name", _EXPERIMENT, "--timestamp", training.key, "--vis", "tensorboard"]
        checkpoints = training.folder(self.output) / "nerfstudio_models"
        if any(checkpoints.glob("step-*.ckpt")):
            command += ["--load-dir", str(checkpoints)]
        elif training.start is not None:
            command += ["--load-checkpoint", str(training.start)]
        return [*command, *training.options, *self.train_options]

    def _target_option(self) -> tuple[str, ...]:
        """The target as a user would give it: a click on one of the training photographs."""
        click = self._scene_note()["click"]
        return ("--pipeline.target.pixel", f"{click['photo']}:{click['column']}:{click['row']}")

    def _render_tests(self, training: Training, config: Path, tests: Sequence[TestImage], folder: Path) -> None:
        """Render the test views into ``folder`` unless pictures newer than the run are there."""
        newest = (training.folder(self.output) / "trained.json").stat().st_mtime
        pictures = [folder / f"{test.name}.png" for test in tests]
        if all(picture.is_file() and picture.stat().st_mtime >= newest for picture in pictures):
            return
        from closeup_ns.evaluation import run  # nerfstudio's imports take seconds, and --help has no need of them

        write_renders(run.open_run(config).render, tests, folder)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "far_count": self.far_photos,
            "size": list(self.size),
            "closeups_per_scale": self.closeups,
        }

    def _scene_note(self) -> dict[str, Any]:
        return json.loads((self.scene_folder / "demo.json").read_text(encoding="utf8"))

    def _remove(self) -> None:
        """Remove the demo's own parts of ``output``: other files in that folder are not ours."""
        for name in ("scene", "runs", "renders", "pictures"):
            if (self.output / name).exists():
                shutil.rmtree(self.output / name)
        for name in ("report.json", "report.md"):
            (self.output / name).unlink(missing_ok=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        refresh_per_second=1,
    )


def _print_table(scores: dict[str, Any], output: Path) -> None:
    from rich.console import Console

    head, rows = table_rows(scores, LABELS)
    table = Table(*head, title="Against the truth")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"report: {output / 'report.json'}   pictures: {output / 'pictures'}")
