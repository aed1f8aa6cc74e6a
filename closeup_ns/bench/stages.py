"""The stages of an experiment: train, render, score. Each that is over is kept when it is killed and repeated.

``python -m closeup_ns.bench.stages OUT SPEC`` runs them in a process of their own.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from closeup_ns.atomic import write_json
from closeup_ns.bench.experiment import RENDERS, Experiment, ExperimentResult, read_experiment
from closeup_ns.bench.held_out import held_out_scores
from closeup_ns.bench.methods import PARSER, train_options
from closeup_ns.bench.process import TAIL_LINES, leave, run_training
from closeup_ns.bench.scenes.prepared import PreparedScene, read_scene
from closeup_ns.data.eval_cameras import photographs_of
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation.evaluate import evaluate, references_by_point
from closeup_ns.evaluation.pictures import find_renders, render_cameras
from closeup_ns.metrics.scores import read_scores, write_scores
from closeup_ns.progress import bar, say
from closeup_ns.provenance import provenance
from closeup_ns.reading import read_json
from closeup_ns.rounds.store.rounds import RoundStore

TRAIN_LOG = "train.log"
CLOSE_ENOUGH = 0.15
"""A row with a CPU budget that spent this much less or more than it, as a share, is trained again, twice at most."""
_EXPERIMENT = "experiment"
_TRAINED = "trained.json"
_IDENTITY = "identity.json"
_AGAIN = "Remove the experiment's folder to train it again"


@dataclass(frozen=True)
class Trained:
    """What trained.json says of a finished training."""

    command: str
    steps: int
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time (train) and CPU time (cpu), where it was trained in one go, and the stages of its rounds."""


def run_experiment(spec: Experiment, out: Path, threads: int = 1) -> ExperimentResult:
    """Do what is left of an experiment; its scene is prepared. What goes wrong is recorded and not raised.

    Raises:
        CloseupError: another process is at this experiment.
    """
    finished = finished_experiment(spec, out)
    if finished is not None:
        return finished
    with _lock(spec.folder(out)):
        result = spec.result(out, "running")
        result.write()
        try:
            scene = read_scene(spec.scene_folder(out))
            steps, seconds = _run_stages(spec, scene, out, threads)
            identity = experiment_identity(spec, scene)
            result = replace(result, state="done", seconds=seconds, steps=steps, identity=identity)
        except Exception as problem:
            result = replace(result, state="failed", error=_last_lines(problem))
        result.write()
    return result


def finished_experiment(spec: Experiment, out: Path) -> ExperimentResult | None:
    """The experiment as it was finished earlier; None where it was not, or its spec, scene or version was another."""
    try:
        found = read_experiment(spec.folder(out))
        if found.state != "done" or found.identity != experiment_identity(spec, read_scene(spec.scene_folder(out))):
            return None
        read_scores(found.scores)
        return replace(found, label=spec.method.label)
    except DataError:
        return None


def experiment_identity(spec: Experiment, scene: PreparedScene) -> str:
    """Checksum of everything that the figures depend on."""
    content = {"train": _train_identity(spec, scene), "evaluation": json.loads(spec.to_json())["evaluation"]}
    if spec.method.renders:
        content["pictures"] = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(_given(spec).glob("*.*"))
        ]
    return _checksum(content)


def _train_identity(spec: Experiment, scene: PreparedScene) -> str:
    """Checksum of everything that the trained model depends on; labels and notes are none of it."""
    method = spec.method
    options = [method.trained_as(spec.quick), *train_options(method, spec.budget, spec.seed, spec.quick, cuda=False)]
    row = [*options, *spec.train_options, method.test_poses, method.finer, method.cpu_time_of, method.renders]
    return _checksum({"train": row, "scene": scene.record.made_with, "version": version("closeup-ns")})


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _run_stages(spec: Experiment, scene: PreparedScene, out: Path, threads: int) -> tuple[int, dict[str, float]]:
    """All stages; returns the steps that were trained and the stages' times in seconds."""
    folder = spec.folder(out)
    if spec.method.renders:
        if scene.record.scored_by == "ns-eval":
            raise CloseupError(f"the protocol {spec.protocol} is scored by ns-eval, which needs a run, not renders")
        _copy_renders(scene, _given(spec), folder / RENDERS)
        trained = Trained(f"renders of {spec.method.renders}", 0)
    else:
        trained = _train(spec, scene, out, threads)
    seconds = dict(trained.seconds)
    if scene.record.scored_by == "renders" and not spec.method.renders:
        say("rendering")
        seconds |= _render(scene, folder, run_folder(spec, out) / "config.yml")
    say("scoring")
    started = time.monotonic()
    _score(spec, scene, out, trained, seconds)
    return trained.steps, {**seconds, "score": time.monotonic() - started}


# ---- training


def _train(spec: Experiment, scene: PreparedScene, out: Path, threads: int) -> Trained:
    """Train unless that is done."""
    folder, method = spec.folder(out), spec.method
    _drop_other(folder, _train_identity(spec, scene))
    done = folder / _TRAINED
    if done.is_file():
        return read_json(done, Trained, _AGAIN)
    if not method.cpu_time_of:
        trained = _train_once(spec, scene, out, threads, 0)
    else:
        budget, clock = _cpu_budget(spec, out)
        trained = _train_once(spec, scene, out, threads, max(1, spec.budget.total // method.finer**2))
        tried: list[tuple[int, float]] = []
        while len(tried) < 2 and abs(trained.seconds.get(clock, budget) / budget - 1) > CLOSE_ENOUGH:
            tried.append((trained.steps, trained.seconds[clock]))
            shutil.rmtree(folder / "run", ignore_errors=True)
            trained = _train_once(spec, scene, out, threads, steps_that_cost(budget, tried))
    write_json(done, vars(trained))
    return trained


def steps_that_cost(budget: float, tried: Sequence[tuple[int, float]]) -> int:
    """How many steps take ``budget`` seconds, by the last trainings' steps and seconds.

    After one training in proportion. After two by the power of the steps that both follow, between 1 and 2: Gaussians
    grow in number, so a short first training says too little of a step (flower, twice as large: 2.0 times the budget).
    """
    (steps, seconds), power = tried[-1], 1.0
    if len(tried) > 1 and tried[-2][0] != steps:
        power = math.log(seconds / tried[-2][1]) / math.log(steps / tried[-2][0])
    return max(1, round(steps * (budget / seconds) ** (1 / min(max(power, 1.0), 2.0))))


def _train_once(spec: Experiment, scene: PreparedScene, out: Path, threads: int, steps: int) -> Trained:
    """One training to its end; ``steps`` of a row with a CPU budget, else 0."""
    folder, run = spec.folder(out), run_folder(spec, out)
    run.mkdir(parents=True, exist_ok=True)
    command, started = train_command(spec, scene, out, steps), time.monotonic()
    cpu = run_training(command, folder / TRAIN_LOG, threads)
    shown = shlex.join(["ns-train", *command[3:]]).replace(f"{out.resolve()}/", "")
    # Of a training that was killed and went on, only the last part's time is known: none is given.
    seconds = {} if "--load-dir" in command else {"train": time.monotonic() - started, "cpu": cpu}
    return Trained(shown, steps or spec.budget.total, seconds | _rounds_seconds(run))


def _cpu_budget(spec: Experiment, out: Path) -> tuple[float, str]:
    """Seconds that the row of ``cpu_time_of`` trained, and of which clock: with a GPU that of the wall."""
    clock = "train" if torch.cuda.is_available() else "cpu"
    other = spec.folder(out).with_name(f"{spec.method.cpu_time_of}-seed{spec.seed}")
    found = read_experiment(other) if other.is_dir() else None
    if found is None or found.state != "done" or clock not in found.seconds:
        raise CloseupError(
            f"{spec.method.label} trains for as much time as {spec.method.cpu_time_of}, which was not trained here in "
            f"one go with seed {spec.seed}: add it to --methods"
        )
    return found.seconds[clock], clock


def run_folder(spec: Experiment, out: Path) -> Path:
    """Where nerfstudio puts the run; config.yml and nerfstudio_models are in it."""
    return spec.folder(out).resolve() / "run" / _EXPERIMENT / spec.method.trained_as(spec.quick) / "run"


def train_command(spec: Experiment, scene: PreparedScene, out: Path, steps: int = 0) -> list[str]:
    """The ns-train command line. It names the capture and nothing of the truth."""
    method, run = spec.method, run_folder(spec, out)
    command = [sys.executable, "-m", "closeup_ns.bench.train", method.trained_as(spec.quick)]
    command += ["--data", str(scene.capture.resolve()), "--output-dir", str(spec.folder(out).resolve() / "run")]
    command += ["--experiment-name", _EXPERIMENT, "--timestamp", "run"]
    start, checkpoints = 0, _readable_checkpoints(run)
    if checkpoints:
        command += ["--load-dir", str(run / "nerfstudio_models")]
        start = int(checkpoints[-1].stem.removeprefix("step-")) + 1
    command += train_options(method, spec.budget, spec.seed, spec.quick, torch.cuda.is_available(), start, steps)
    if method.ours and (method.schedule(spec.budget).rounds or scene.record.scored_by == "ns-eval"):
        command += _target_option(scene) + (_frontier_option(scene) if method.test_poses else [])
    command += spec.train_options
    side = scene.record.image_side * method.finer
    return [*command, PARSER, "--max-image-size", str(side)] if side else command


def _readable_checkpoints(run: Path) -> list[Path]:
    """Checkpoints, oldest first. One that a kill cut short is removed: nerfstudio writes them in place."""
    found = sorted((run / "nerfstudio_models").glob("step-*.ckpt"))
    for path in found:
        if not zipfile.is_zipfile(path):
            path.unlink()
    return [path for path in found if path.is_file()]


def _target_option(scene: PreparedScene) -> list[str]:
    """The object of interest: a click on a photograph that is trained on, or a point where their size varies."""
    if scene.record.target_xyz is not None:
        return ["--pipeline.target.xyz", *(repr(value) for value in scene.record.target_xyz)]
    pixel = scene.record.target_pixel
    if not pixel:
        return []
    name, column, row = pixel.rsplit(":", 2)
    trained = {path.stem: path.name for _, path in photographs_of(scene.capture / "transforms.json")}
    if Path(name).stem not in trained:
        raise DataError(f"the photograph of the pixel {pixel} is not trained on; click another one in the protocol")
    return ["--pipeline.target.pixel", f"{trained[Path(name).stem]}:{column}:{row}"]


def _frontier_option(scene: PreparedScene) -> list[str]:
    """The test poses, for rows that may know them."""
    if not scene.record.frontier:
        raise DataError(
            f"the protocol {scene.record.protocol} offers no test poses (`frontier: test`), which this row needs"
        )
    return ["--pipeline.frontier-cameras", str((scene.folder / scene.record.frontier).resolve())]


def _drop_other(folder: Path, identity: str) -> None:
    """Remove what was trained with other settings, and note with which it is trained now."""
    note = folder / _IDENTITY
    try:
        same = read_json(note, dict[str, str], _AGAIN).get("train") == identity
    except DataError:
        same = False
    if not same:
        (folder / _TRAINED).unlink(missing_ok=True)
        for name in ("run", RENDERS):
            shutil.rmtree(folder / name, ignore_errors=True)
        write_json(note, {"train": identity})


def _rounds_seconds(run: Path) -> dict[str, float]:
    """What the rounds took, stage by stage, over all rounds; empty for methods without rounds."""
    store, totals = RoundStore(run / "rounds"), dict[str, float]()
    for number in store.rounds_done():
        for stage, value in (store.report(number) or {})["seconds"].items():
            totals[stage] = totals.get(stage, 0.0) + float(value)
    return totals


# ---- rendering and scoring


def _given(spec: Experiment) -> Path:
    return Path(spec.method.renders) / spec.protocol / spec.scene


def _copy_renders(scene: PreparedScene, source: Path, destination: Path) -> None:
    """Copy given pictures, so that tables and grids find every method's in one place."""
    found = find_renders(scene.cameras(), source)
    shutil.rmtree(destination, ignore_errors=True)
    destination.mkdir(parents=True)
    for path in found.values():
        shutil.copyfile(path, destination / path.name)


def _render(scene: PreparedScene, folder: Path, config: Path) -> dict[str, float]:
    """Render every camera that has no picture yet. Seconds for all of them, without loading the run."""
    cameras = scene.cameras()
    there = [(folder / RENDERS / f"{camera.name}.png").is_file() for camera in cameras]
    if all(there):
        return {}
    from closeup_ns.evaluation.run import open_run

    render, started = open_run(config).render, time.monotonic()
    with bar("rendering", len(cameras)) as advance:
        render_cameras(render, cameras, folder / RENDERS, advance)
    return {} if any(there) else {"render": time.monotonic() - started}


def _score(spec: Experiment, scene: PreparedScene, out: Path, trained: Trained, seconds: dict[str, float]) -> None:
    """Score and write scores.json. Every method has the same reference photographs: those of the scene's target."""
    folder, config = spec.folder(out), run_folder(spec, out) / "config.yml"
    about = {
        "method": spec.method.name, "label": spec.method.label, "note": spec.method.note, "protocol": spec.protocol,
        "scene": spec.scene, "seed": spec.seed, "steps": trained.steps, **provenance(), "command": trained.command,
        "config": "" if spec.method.renders else config.relative_to(out.resolve()).as_posix(), "seconds": seconds,
        "machine": _machine(), "scene_notes": scene.record.notes,
    }  # fmt: skip
    if scene.record.scored_by == "ns-eval":
        write_scores(held_out_scores(config, scene.record.image_side, about), folder)
        return
    cameras, point, references = scene.cameras(), scene.record.target_point, None
    closer = [camera for camera in cameras if camera.scale > 1]
    if point is not None and closer:
        photographs = photographs_of(scene.capture / "transforms.json")
        references = references_by_point(closer, photographs, torch.tensor(point, dtype=torch.float64))
    with bar("scoring", len(cameras)) as advance:
        scores = evaluate(cameras, folder / RENDERS, spec.evaluation, references, about, advance)
    write_scores(scores, folder)


def _machine() -> str:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {accelerator}, torch {torch.__version__}"


# ---- the process


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CloseupError(f"another process is at {folder}: wait for it, or end that bench") from None
        yield


def _last_lines(problem: Exception) -> str:
    """An error that a user can act on as it is; of others the end of the traceback."""
    if isinstance(problem, CloseupError):
        return str(problem)
    return "\n".join("".join(traceback.format_exception(problem)).splitlines()[-TAIL_LINES:])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    _out, _spec = Path(sys.argv[1]), Path(sys.argv[2])
    run_experiment(
        Experiment.from_json(_spec.read_text(encoding="utf8")), _out, int(os.environ.get("OMP_NUM_THREADS", "1"))
    )
