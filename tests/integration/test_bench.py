"""`closeup-gs bench` on a rendered scene of a few pixels: real trainings, a repeat that keeps them, tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup_ns.bench.experiment import read_experiments
from closeup_ns.evaluation.run import open_run
from tests.integration.commands import Finished, fork

pytestmark = pytest.mark.integration

PROTOCOL = """
name: tiny
kind: rendered
scales: [3, 9, 27]
rounds: 1
scenes: [{name: small, seed: 3, size: [96, 72], far_photos: 10, closeups: 1}]
"""
PLANNER = {"anchors": 2, "updates": 2, "candidates": 12}


def bench(folder: Path, *methods: str) -> Finished:
    (folder / "tiny.yaml").write_text(PROTOCOL)
    words = [word for name, value in PLANNER.items() for word in (f"pipeline.planner.{name}", value)]
    return fork(
        "closeup-gs", "bench", "--protocol", folder / "tiny.yaml", "--methods", *methods, "--output", folder / "out",
        "--quick", "--base-steps", 30, "--round-steps", 10, "--train-options", *words,
        "--evaluation.metrics", "psnr", "ssim", cwd=folder,
    )  # fmt: skip


def test_two_methods_and_one_that_cannot_run(tmp_path: Path) -> None:
    ended = bench(tmp_path, "plain", "closeup-gs", "see3d-update")
    assert ended.code == 0, ended.output
    experiments = {experiment.method: experiment for experiment in read_experiments(tmp_path / "out")}
    assert {name: experiment.state for name, experiment in experiments.items()} == {
        "plain": "done", "closeup-gs": "done", "see3d-update": "failed"
    }, ended.output  # fmt: skip
    assert "the refiner see3d cannot run here" in experiments["see3d-update"].error
    for name in ("plain", "closeup-gs"):
        scores = json.loads(experiments[name].scores.read_text())
        assert scores["means"]["far"]["psnr"] > 8 and set(scores["means"]) == {"far", "3x", "9x", "27x", "close"}
        run = open_run(tmp_path / "out" / scores["about"]["config"])
        assert run.step == 39  # the last of as many steps for either
    assert {"train", "score"} <= experiments["closeup-gs"].seconds.keys()
    stamps = {name: experiments[name].scores.stat().st_mtime_ns for name in ("plain", "closeup-gs")}
    ended = bench(tmp_path, "plain", "closeup-gs")
    assert ended.code == 0 and ended.text.count("kept") == 2, ended.output
    assert stamps == {name: experiments[name].scores.stat().st_mtime_ns for name in stamps}
