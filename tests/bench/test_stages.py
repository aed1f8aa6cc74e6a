"""One experiment: what is trained, what is kept, what goes on after a kill, and what is said when it fails."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from closeup_ns.bench.experiment import Experiment, read_experiment, read_experiments
from closeup_ns.bench.held_out import scores_of
from closeup_ns.bench.methods import Budget, Method
from closeup_ns.bench.process import run_training
from closeup_ns.bench.scenes.prepared import read_scene
from closeup_ns.bench.stages import (
    experiment_identity,
    finished_experiment,
    run_experiment,
    steps_that_cost,
    train_command,
)
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation.evaluate import EvaluationConfig
from closeup_ns.metrics.scores import read_scores
from closeup_ns.views.rendered import Rendered
from tests.bench.stand_in import HEIGHT, PLAIN, WIDTH, a_spec, given_renders, option, render_grey, write_scene

Trainer = Callable[..., Callable[[], list[list[str]]]]
ROUNDS = Method("rounds", "with rounds", nerfstudio="closeup-gs", quick="closeup-gs-quick")


def test_an_experiment_from_start_to_end(tmp_path: Path, trainer: Trainer) -> None:
    calls = trainer()
    write_scene(tmp_path)
    result = run_experiment(a_spec(seed=4), tmp_path)
    assert (result.state, result.error, result.steps) == ("done", "", 10)
    assert result.folder == tmp_path / "experiments" / "tiny" / "small" / "plain-seed4"
    assert read_experiment(result.folder) == result == read_experiments(tmp_path)[0]
    assert sorted(path.name for path in result.renders.iterdir()) == ["far.png", "near.png"]
    scores = read_scores(result.scores)
    assert [row.image for row in scores.rows] == ["far", "near"]
    assert scores.rows[1].reference.startswith("p") and not scores.rows[0].reference
    about = scores.about
    assert (about["method"], about["protocol"], about["scene"], about["seed"]) == ("plain", "tiny", "small", 4)
    assert about["config"] == "experiments/tiny/small/plain-seed4/run/experiment/closeup-gs/run/config.yml"
    assert (tmp_path / about["config"]).is_file()
    assert about["command"].startswith("ns-train closeup-gs --data scenes/tiny/small/capture")
    assert {"train", "render"} <= about["seconds"].keys() and {"train", "render", "score"} <= result.seconds.keys()
    assert len(calls()) == 1


def test_training_is_told_of_the_capture_and_the_click_and_not_of_the_truth(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene = read_scene(tmp_path / "scenes" / "tiny" / "small")
    command = train_command(a_spec(ROUNDS, train_options=("--one", "2")), scene, tmp_path)
    assert option(command, "--data") == str(scene.capture)
    assert not [word for word in command if "truth" in word]
    assert option(command, "--pipeline.target.pixel") == "p1.png:12:9"  # the protocol's p1.JPG is p1.png here
    assert command[3] == "closeup-gs" and command[-2:] == ["--one", "2"]
    assert train_command(a_spec(ROUNDS, quick=True), scene, tmp_path)[3] == "closeup-gs-quick"
    for other in (PLAIN, Method("nerfacto", nerfstudio="nerfacto")):
        assert "--pipeline.target.pixel" not in train_command(a_spec(other), scene, tmp_path)


def test_test_poses_are_given_to_rows_that_may_know_them(tmp_path: Path) -> None:
    asking = replace(ROUNDS, test_poses=True)
    write_scene(tmp_path, frontier="frontier.json")
    scene = read_scene(tmp_path / "scenes" / "tiny" / "small")
    assert option(train_command(a_spec(asking), scene, tmp_path), "--pipeline.frontier-cameras") == str(
        scene.folder / "frontier.json"
    )
    assert "--pipeline.frontier-cameras" not in train_command(a_spec(ROUNDS), scene, tmp_path)
    without = replace(scene, record=replace(scene.record, frontier=""))
    with pytest.raises(DataError, match="offers no test poses"):
        train_command(a_spec(asking), without, tmp_path)


def test_a_click_on_a_photograph_that_is_not_trained_on_is_an_error(tmp_path: Path) -> None:
    write_scene(tmp_path, target_pixel="gone.png:1:1")
    scene = read_scene(tmp_path / "scenes" / "tiny" / "small")
    with pytest.raises(DataError, match=r"gone\.png:1:1 is not trained on"):
        train_command(a_spec(ROUNDS), scene, tmp_path)
    assert "--pipeline.target.pixel" not in train_command(
        a_spec(ROUNDS), replace(scene, record=replace(scene.record, target_pixel="")), tmp_path
    )


def test_a_finished_experiment_is_kept_until_something_that_matters_changes(tmp_path: Path, trainer: Trainer) -> None:
    calls = trainer()
    write_scene(tmp_path)
    first = run_experiment(a_spec(), tmp_path)
    stamp = first.scores.stat().st_mtime_ns
    renamed = run_experiment(a_spec(replace(PLAIN, label="another label")), tmp_path)
    assert renamed.label == "another label"
    assert len(calls()) == 1 and first.scores.stat().st_mtime_ns == stamp
    run_experiment(a_spec(evaluation=EvaluationConfig(("psnr", "ssim"))), tmp_path)
    assert len(calls()) == 1 and set(read_scores(first.scores).metrics) == {"psnr", "ssim"}
    run_experiment(a_spec(budget=Budget(20, 0, 0)), tmp_path)
    assert len(calls()) == 2
    assert finished_experiment(a_spec(), tmp_path) is None


def test_another_scene_is_trained_on_anew_and_not_gone_on_with(tmp_path: Path, trainer: Trainer) -> None:
    calls = trainer()
    write_scene(tmp_path)
    first = run_experiment(a_spec(), tmp_path)
    os.utime(first.renders / "near.png", (1, 1))  # a file system's clock may stand still between two writes
    write_scene(tmp_path, made_with={"seed": 2})
    run_experiment(a_spec(), tmp_path)
    assert len(calls()) == 2 and "--load-dir" not in calls()[1]
    assert (first.renders / "near.png").stat().st_mtime > 1


def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path: Path, trainer: Trainer) -> None:
    calls = trainer("sys.exit('killed')")
    write_scene(tmp_path)
    nerfacto = Method("nerfacto", "Nerfacto", nerfstudio="nerfacto")
    spec = a_spec(nerfacto, budget=Budget(30, 0, 0))
    failed = run_experiment(spec, tmp_path)
    assert failed.state == "failed" and "killed" in failed.error and not failed.scores.exists()
    calls = trainer()
    done = run_experiment(spec, tmp_path)
    assert done.state == "done" and done.error == ""
    assert option(calls()[1], "--load-dir").endswith("nerfacto-seed0/run/experiment/nerfacto/run/nerfstudio_models")
    assert option(calls()[1], "--max-num-iterations") == "20"  # ten steps are in the checkpoint
    assert "train" not in done.seconds  # only the last part's time is known


def test_a_checkpoint_that_a_kill_cut_short_is_not_loaded(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene = read_scene(tmp_path / "scenes" / "tiny" / "small")
    models = tmp_path / "experiments/tiny/small/plain-seed0/run/experiment/closeup-gs/run/nerfstudio_models"
    models.mkdir(parents=True)
    (models / "step-000000007.ckpt").write_bytes(b"PK\x03\x04 and no more")
    assert "--load-dir" not in train_command(a_spec(), scene, tmp_path)
    assert not list(models.iterdir())


def test_what_was_killed_after_training_is_not_trained_again(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trainer()
    write_scene(tmp_path)
    seen = []

    def stop_at_the_second(view: object) -> Rendered:
        seen.append(view)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return render_grey(view)  # type: ignore[arg-type]

    opened = SimpleNamespace(render=stop_at_the_second)
    monkeypatch.setattr("closeup_ns.evaluation.run.open_run", lambda config: opened)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(a_spec(), tmp_path)
    assert read_experiments(tmp_path)[0].state == "running"
    assert run_experiment(a_spec(), tmp_path).state == "done"
    assert len(calls()) == 1 and len(seen) == 3  # the far view was rendered once


def test_an_error_of_nobodys_intention_keeps_the_end_of_its_traceback(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer()
    write_scene(tmp_path)
    monkeypatch.setattr("closeup_ns.bench.stages._render", lambda *given: 1 / 0)
    assert run_experiment(a_spec(), tmp_path).error.endswith("ZeroDivisionError: division by zero")


def test_an_experiment_that_another_process_is_at_is_left_alone(tmp_path: Path, trainer: Trainer) -> None:
    calls = trainer()
    write_scene(tmp_path)
    folder = a_spec().folder(tmp_path)
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CloseupError, match="another process is at"):
            run_experiment(a_spec(), tmp_path)
    assert run_experiment(a_spec(), tmp_path).state == "done" and len(calls()) == 1


TIMED = Method("timed", "timed", nerfstudio="closeup-gs", rounds=0, finer=2, cpu_time_of="plain")


@pytest.mark.parametrize(("power", "budget"), [(1.0, 90.0), (1.3, 40.0), (1.7, 3000.0), (1.3, 5000.0)])
def test_two_corrections_find_the_steps_that_cost_the_budget(power: float, budget: float) -> None:
    tried = [(325, 70.0)]
    for _ in range(2):
        steps = steps_that_cost(budget, tried)
        tried.append((steps, 70.0 * (steps / 325) ** power))
    assert tried[-1][1] == pytest.approx(budget, rel=0.02)
    assert steps_that_cost(budget, [(5, 1.0), (5, 1.0)]) == round(5 * budget)


@pytest.mark.parametrize(("seconds", "steps"), [(8.0, [2]), (16.0, [2, 4]), (72.0, [2, 18, 6])])
def test_a_row_with_a_budget_trains_as_long_as_the_other_row(
    tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, seconds: float, steps: list[int]
) -> None:
    """Its first training, of a quarter of the steps since it has four times the pixels, tells what a step costs."""
    calls = trainer()

    def timed(command: list[str], *rest: Any) -> float:
        run_training(command, *rest)
        return {2: 8.0, 4: 16.0, 18: 648.0}.get(int(option(command, "--pipeline.schedule.base-steps")), seconds)

    monkeypatch.setattr("closeup_ns.bench.stages.run_training", timed)
    write_scene(tmp_path, image_side=24)
    alone = run_experiment(a_spec(TIMED), tmp_path)
    assert alone.state == "failed" and "add it to --methods" in alone.error
    other = run_experiment(a_spec(), tmp_path)
    replace(other, seconds={"cpu": seconds}).write()
    done = run_experiment(a_spec(TIMED), tmp_path)
    assert done.state == "done" and done.steps == steps[-1] and done.seconds["cpu"] == seconds
    assert [int(option(call, "--pipeline.schedule.base-steps")) for call in calls()] == [10, *steps]
    assert [call[-3:] for call in calls()] == [
        ["closeup-data", "--max-image-size", size] for size in ("24", *["48"] * len(steps))
    ]


def test_a_scene_that_ns_eval_scores(tmp_path: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = trainer()
    found = {"psnr": 25.0, "ssim": 0.8, "num_rays_per_sec": 3.0, "missing": {"dino": "no"}}
    found |= {"photo_psnr": 25.1, "photo_psnr_registered": 26.0, "close_reliable_psnr_3x": 1.0}
    found |= {"close_photo_psnr_3x": 21.0, "close_photo_psnr_registered_3x": 22.0, "close_photo_ssim_9x": math.nan}
    found |= {"close_photo_count_3x": 5.0, "photo_cc_psnr": 25.5}
    monkeypatch.setattr("closeup_ns.bench.stages.held_out_scores", lambda config, side, about: scores_of(found, about))
    write_scene(tmp_path, scored_by="ns-eval", target_xyz=(0.5, -1.0, 2e-9))
    done = run_experiment(a_spec(), tmp_path)
    assert done.state == "done" and not done.renders.exists()
    where = calls()[0].index("--pipeline.target.xyz")
    assert [float(word) for word in calls()[0][where + 1 : where + 4]] == [0.5, -1.0, 2e-9]
    scores = read_scores(done.scores)
    assert [(row.scale, row.values) for row in scores.rows] == [
        (1.0, {"psnr": 25.0, "ssim": 0.8, "psnr_registered": 26.0, "cc_psnr": 25.5}),
        (3.0, {"psnr": 21.0, "psnr_registered": 22.0}),
    ]
    assert scores.missing == {"dino": "no"}
    assert "needs a run" in run_experiment(given_folder(tmp_path), tmp_path).error


def given_folder(tmp_path: Path) -> Experiment:
    return a_spec(Method("theirs", "theirs", renders=str(given_renders(tmp_path))))


def test_a_folder_of_renders_is_a_row(tmp_path: Path) -> None:
    write_scene(tmp_path)
    spec = given_folder(tmp_path)
    done = run_experiment(spec, tmp_path)
    assert done.state == "done" and done.steps == 0 and done.seconds.keys() == {"score"}
    assert sorted(path.name for path in done.renders.iterdir()) == ["far.png", "near.jpg"]
    assert finished_experiment(spec, tmp_path) == done
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "theirs" / "tiny" / "small" / "far.png")
    assert finished_experiment(spec, tmp_path) is None  # other pictures, other figures


def test_half_a_folder_of_renders_fails_and_names_what_lacks(tmp_path: Path) -> None:
    write_scene(tmp_path)
    spec = given_folder(tmp_path)
    (tmp_path / "theirs" / "tiny" / "small" / "near.jpg").unlink()
    failed = run_experiment(spec, tmp_path)
    assert failed.state == "failed" and "lacks renders of 1 of 2 cameras: near" in failed.error


def test_a_scene_that_is_gone_is_a_failed_experiment(tmp_path: Path, trainer: Trainer) -> None:
    trainer()
    shutil.rmtree(write_scene(tmp_path))
    assert "scene.json does not exist" in run_experiment(a_spec(), tmp_path).error


def test_identity_holds_what_matters(tmp_path: Path) -> None:
    write_scene(tmp_path)
    scene = read_scene(tmp_path / "scenes" / "tiny" / "small")
    changed = [
        a_spec(), a_spec(seed=1), a_spec(ROUNDS), a_spec(ROUNDS, quick=True), a_spec(budget=Budget(7, 2, 2)),
        a_spec(train_options=("--a", "b")), a_spec(evaluation=EvaluationConfig(("ssim",))),
        a_spec(replace(ROUNDS, test_poses=True)), a_spec(replace(PLAIN, finer=2)),
        a_spec(replace(PLAIN, cpu_time_of="x")),
    ]  # fmt: skip
    identities = [experiment_identity(spec, scene) for spec in changed]
    assert len(set(identities)) == len(identities)
    assert experiment_identity(a_spec(replace(PLAIN, note="a note")), scene) == identities[0]
