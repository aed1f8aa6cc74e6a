"""The training stages of tools/gpu_check.py, really run on the CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.demo_small import small_demo
from tools import _training
from tools._report import CheckFailed, Skipped
from tools._training import TrainingPlan


@pytest.mark.slow
@pytest.mark.integration
def test_the_demo_is_trained_and_evaluated_by_nerfstudios_own_commands(tmp_path: Path) -> None:
    plan = TrainingPlan(tmp_path, "cpu", base_steps=40, round_steps=10, tiny=True)
    shutil.copytree(small_demo()[0], plan.scene)
    assert _training.make_scene(plan) == {"photos": 16}
    trained = _training.train(plan, "closeup-gs-quick", seconds=250)
    assert trained["steps"] == 50 and int(trained["gaussians"]) > 0 and float(trained["step_ms"]) > 0
    evaluated = _training.evaluate(plan, "closeup-gs-quick", seconds=250, on_cpu=True)
    assert float(evaluated["psnr"]) > 12 and 0 < float(evaluated["ssim"]) <= 1


def test_what_cannot_be_trained_or_evaluated_is_skipped(tmp_path: Path) -> None:
    plan = TrainingPlan(tmp_path, "cpu", 40, 10, True)
    with pytest.raises(Skipped, match="no scene"):
        _training.train(plan, "closeup-gs-quick", 10)
    with pytest.raises(Skipped, match="left no run"):
        _training.evaluate(plan, "closeup-gs-quick", 10, on_cpu=True)
    with pytest.raises(Skipped, match="nothing to compare"):
        _training.evaluate_on_both(plan, "closeup-gs-quick", 10, {})


def test_both_devices_must_come_to_the_same_psnr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_training, "evaluate", lambda *_arguments, **_keywords: {"psnr": 20.0, "ssim": 0.5})
    plan = TrainingPlan(tmp_path, "cuda", 40, 10, False)
    assert _training.evaluate_on_both(plan, "m", 10, {"psnr": 20.2})["gap_db"] == pytest.approx(0.2)
    with pytest.raises(CheckFailed, match="differs by 0.40 dB"):
        _training.evaluate_on_both(plan, "m", 10, {"psnr": 20.4})
