"""The demo's stages: what is trained, with what, what is skipped, and what is said when something fails."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from closeup_ns.cli import demo as demo_module
from closeup_ns.cli.demo import Demo, Training
from closeup_ns.errors import CloseupError, DataError
from tests.data.demo_small import CLOSE, FAR, SIZE, small_demo


@pytest.fixture
def ready(tmp_path: Path) -> Demo:
    """A demo whose scene is there (a link: nothing writes into it)."""
    (tmp_path / "scene").symlink_to(small_demo()[0])
    return Demo(tmp_path, seed=3, size=SIZE, far_photos=FAR, closeups=CLOSE, base_steps=20, rounds=2, round_steps=5)


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Replace the interpreter that ns-train would run in by a shell script that is given the same arguments."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(demo_module.sys, "executable", str(program))


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_every_method_trains_for_the_same_number_of_steps(ready: Demo) -> None:
    totals = {}
    for training in ready.trainings():
        words = list(training.options)
        base, rounds, each = (
            int(option(words, f"--pipeline.schedule.{n}")) for n in ("base-steps", "rounds", "round-steps")
        )
        totals[training.key] = (base + rounds * each, rounds)
    assert totals == {"plain": (30, 0), "base": (30, 0), "closeup": (30, 2)}


def test_training_is_told_of_the_capture_only(ready: Demo) -> None:
    for training in ready.trainings():
        command = ready.command(training)
        assert command[:4] == [sys.executable, "-m", "nerfstudio.scripts.train", training.method]
        assert option(command, "--data") == str(ready.scene_folder / "capture")
        assert not [word for word in command if "truth" in word]
    click = json.loads((ready.scene_folder / "demo.json").read_text())["click"]
    closeup = next(training for training in ready.trainings() if training.key == "closeup")
    name, column, row = option(ready.command(closeup), "--pipeline.target.pixel").split(":")
    assert (name, float(column), float(row)) == (click["photo"], click["column"], click["row"])


def test_a_killed_run_goes_on_from_its_checkpoint(ready: Demo) -> None:
    training = ready.trainings()[0]
    assert "--load-dir" not in ready.command(training)
    checkpoints = training.folder(ready.output) / "nerfstudio_models"
    checkpoints.mkdir(parents=True)
    assert "--load-dir" not in ready.command(training)
    (checkpoints / "step-000000010.ckpt").touch()
    assert option(ready.command(training), "--load-dir") == str(checkpoints)


def test_a_finished_training_is_not_repeated(ready: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = Training("plain", "some-method", ("--steps", "3"))
    folder = training.folder(ready.output)
    calls = tmp_path / "calls"
    stand_in(monkeypatch, tmp_path, f'echo "$@" >> {calls}; touch {folder}/config.yml')
    for _ in range(2):
        assert ready.train(training) == folder / "config.yml"
    assert len(calls.read_text().splitlines()) == 1
    with pytest.raises(DataError, match="other options"):
        ready.train(Training("plain", "some-method", ("--steps", "4")))


def test_a_failed_training_shows_the_end_of_its_log_and_is_tried_again(
    ready: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "echo first; echo 'no memory left' >&2; exit 3")
    training = Training("plain", "some-method")
    with pytest.raises(CloseupError, match="(?s)exit code 3.*no memory left"):
        ready.train(training)
    assert not (training.folder(ready.output) / "trained.json").exists()
    with pytest.raises(CloseupError, match="exit code 3"):
        ready.train(training)


def test_a_scene_of_other_settings_is_an_error_with_the_way_out(ready: Demo) -> None:
    ready.render_scene()
    ready.seed, ready.far_photos = 4, 20
    with pytest.raises(DataError, match="another far_count, seed: add --fresh"):
        ready.render_scene()


def test_fresh_removes_the_demo_and_nothing_else(tmp_path: Path) -> None:
    for name in ("scene/truth", "runs/demo", "renders", "pictures", "mine"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "report.json").touch()
    Demo(tmp_path)._remove()
    assert sorted(os.listdir(tmp_path)) == ["mine"]


def test_renders_are_made_again_when_the_run_is_newer(
    ready: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    training, made = ready.trainings()[0], []
    done = training.folder(ready.output) / "trained.json"
    done.parent.mkdir(parents=True)
    done.touch()
    tests = demo_module.load_tests(ready.scene_folder)

    def write(render: object, tests: list, folder: Path) -> None:
        made.append(len(tests))
        folder.mkdir(exist_ok=True)
        for test in tests:
            (folder / f"{test.name}.png").touch()

    monkeypatch.setattr("closeup_ns.evaluation.run.open_run", lambda config: SimpleNamespace(render=None))
    monkeypatch.setattr(demo_module, "write_renders", write)
    for _ in range(2):
        ready._render_tests(training, done, tests, tmp_path / "renders")
    assert len(made) == 1
    later = time.time() + 60
    os.utime(done, (later, later))
    ready._render_tests(training, done, tests, tmp_path / "renders")
    assert len(made) == 2
