"""`closeup-gs eval` on a finished run, and on the pictures that it rendered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.evaluation.run import open_run
from closeup_ns.views.view import move_closer
from tests.integration.commands import fork
from tests.integration.runs import Run

pytestmark = pytest.mark.integration


def test_a_run_is_scored_at_its_held_out_photographs_as_ns_eval_does(finished: Run, tmp_path: Path) -> None:
    ended = fork("closeup-gs", "eval", "--load-config", finished.config, "--output", tmp_path / "scores", cwd=tmp_path)
    assert ended.code == 0, ended.output
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    reported = finished.json("round_2", "report.json")["evaluation_psnr"]["after"]
    values = [row["values"]["psnr"] for row in scores["rows"]]
    assert sum(values) / len(values) == pytest.approx(reported, abs=0.05)
    assert {"lpips_vgg", "lpips_alex", "dino", "metaiqa"} <= set(scores["missing"]) | set(scores["metrics"])
    assert scores["about"]["method"] == "closeup-gs-quick" and scores["about"]["command"]


def test_a_run_and_its_own_renders_score_the_same_at_given_cameras(finished: Run, tmp_path: Path) -> None:
    """The run's two held-out photographs as far views, and two close-ups without any."""
    cameras = tmp_path / "cameras.json"
    far = open_run(finished.config).held_out(tmp_path)
    view = far[0].view
    target = view.position + 2.0 * view.forward
    close = [EvalCamera(f"close_{z}", float(z), move_closer(view, target, z)) for z in (3, 9)]
    write_cameras(cameras, [*far, *close])
    common = ("--cameras", cameras, "--evaluation.metrics", "psnr", "ssim", "sharpness")
    ended = fork("closeup-gs", "eval", "--load-config", finished.config, *common, "--output", tmp_path / "a",
                 cwd=tmp_path)  # fmt: skip
    assert ended.code == 0, ended.output
    ended = fork("closeup-gs", "eval", "--renders", tmp_path / "a" / "renders", *common, "--output", tmp_path / "b",
                 cwd=tmp_path)  # fmt: skip
    assert ended.code == 0, ended.output
    run, folder = (json.loads((tmp_path / name / "scores.json").read_text()) for name in "ab")
    assert run["means"] == folder["means"]
    values = {row["image"]: row["values"] for row in run["rows"]}
    assert values == {row["image"]: row["values"] for row in folder["rows"]} and values["close_3"] == {}
    assert all(row["reference"] for row in run["rows"] if row["scale"] > 1)
    assert len(list((tmp_path / "a" / "renders").glob("*.png"))) == 4
