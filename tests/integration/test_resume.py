"""Resumed, started from elsewhere: a run goes on where it was, decides nothing twice, and really trains.

Killed in a round: test_refine.py, test_native.py, and at random instants soak.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.integration.captures import write_transforms
from tests.integration.commands import Finished, fork
from tests.integration.runs import ROUNDS, Run, run_of, train_arguments

pytestmark = pytest.mark.integration
OWN_KEYS = ("_model.screen_kernel", "_model.exposure", "_model.footprint")


def train(capture: Path, output: Path, timestamp: str, **changes: object) -> Finished:
    return fork("ns-train", *train_arguments(capture, output, timestamp, **changes), cwd=output)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], name: str) -> bool:
    name = f"_model.gauss_params.{name}"
    return before[name].shape != after[name].shape or not torch.equal(before[name], after[name])


# Resuming trains


@pytest.fixture(scope="module")
def half(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A base phase that was stopped after 30 of its 60 steps."""
    output = tmp_path_factory.mktemp("half")
    ended = train(capture, output, "first", max_num_iterations=30)
    assert ended.code == 0, ended.output
    return run_of(output, "first")


def test_a_resumed_base_phase_trains_and_densifies(capture: Path, half: Run, tmp_path: Path) -> None:
    """Upstream's resumed training changes nothing: it optimises parameters that the model no longer holds."""
    assert [path.name for path in half.checkpoints()] == ["step-000000029.ckpt"] and not half.rounds.exists()
    ended = train(capture, tmp_path, "second", load_dir=half.models, max_num_iterations=56)
    assert ended.code == 0, ended.output
    resumed = run_of(tmp_path, "second")
    assert resumed.state()["step"] == 55  # counted from the start, not once more as many steps
    before, after = half.model(), resumed.model()
    assert all(changed(before, after, name) for name in ("means", "scales", "quats", "features_dc", "opacities"))
    assert before["_model.gauss_params.means"].shape != after["_model.gauss_params.means"].shape
    moments = resumed.state()["optimizers"]["means"]["state"][0]
    assert moments["exp_avg"].shape == after["_model.gauss_params.means"].shape
    assert float(moments["step"]) > 40


def test_a_finished_run_goes_on_with_a_further_round(capture: Path, finished: Run, tmp_path: Path) -> None:
    """A longer schedule: the old rounds are kept as they are, one is added, the model changes."""
    ended = train(capture, tmp_path, "longer", load_dir=finished.models, pipeline__schedule__rounds=3)
    assert ended.code == 0, ended.output
    longer = run_of(tmp_path, "longer")
    old, new = finished.decided(), longer.decided()
    assert {name: new[name] for name in old} == old
    assert longer.stamps().keys() - finished.stamps().keys() >= {"round_3/plan.json", "round_3/verdict.json"}
    assert longer.json("round_3", "report.json")["zoom"] == 27.0
    assert longer.state()["step"] == 60 + 3 * 12 - 1
    assert changed(finished.model(), longer.model(), "means")


# From elsewhere


def as_splatfacto(run: Run, path: Path, step: int = 7) -> Path:
    """A checkpoint as splatfacto would have written it: without our keys, with the network of its LPIPS."""
    state = run.state()
    state["pipeline"] = {name: value for name, value in state["pipeline"].items() if not name.startswith(OWN_KEYS)}
    state["pipeline"]["_model.lpips.net.lin0.model.1.weight"] = torch.zeros(1, 64, 1, 1)
    state["step"] = step
    torch.save(state, path)
    return path


def test_a_splatfacto_checkpoint_goes_straight_to_the_rounds(capture: Path, finished: Run, tmp_path: Path) -> None:
    checkpoint = as_splatfacto(finished, tmp_path / "step-000000007.ckpt")
    ended = train(capture, tmp_path, "rounds", load_checkpoint=checkpoint)
    assert ended.code == 0, ended.output
    assert "the base phase is skipped" in ended.text
    run = run_of(tmp_path, "rounds")
    assert [run.json(f"round_{number}", "report.json")["zoom"] for number in (1, 2)] == [3.0, 9.0]
    assert run.state()["step"] == 60 + ROUNDS * 12 - 1
    assert run.model()["_model.screen_kernel"][0] == pytest.approx(0.3)  # what splatfacto was trained with
    assert changed(finished.model(), run.model(), "means")
    rate = run.state()["optimizers"]["means"]["param_groups"][0]["lr"]
    assert rate == pytest.approx(1.6e-6, rel=0.01)  # the end of the last round


def test_a_checkpoint_of_another_scene_is_refused(finished: Run, tmp_path: Path) -> None:
    """The same number of photographs, another place, and every photograph its own negative."""
    write_transforms(tmp_path / "other", seed=5)
    for path in (tmp_path / "other/images").iterdir():
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(np.where(pixels > 127, 0, 255).astype(np.uint8)).save(path)
    ended = train(tmp_path / "other", tmp_path, "t", load_checkpoint=finished.checkpoints()[-1])
    assert ended.code == 1
    assert "checkpoint of another scene" in ended.text and "Traceback" not in ended.output


def test_another_scenes_rounds_are_refused(capture: Path, copied: Run, tmp_path: Path) -> None:
    """Rounds of another capture would be trained on as if they were this one's."""
    path = copied.rounds / "run.json"
    path.write_text(path.read_text().replace('"images": 10', '"images": 11'))
    before = copied.decided()
    ended = train(capture, tmp_path, "t", load_dir=copied.models, pipeline__schedule__rounds=3)
    assert ended.code == 1, ended.output
    assert "belong to another run" in ended.text
    assert copied.decided() == before
