"""The table of computed figures: its units, and what it says of the aim."""

from __future__ import annotations

import pytest
import torch

from benchmarks import see3d
from closeup_ns.refine.see3d.budget import GIB, Budget, JointPass

WEIGHTS = {"unet": 2 * GIB, "vae": GIB // 2, "text_encoder": GIB // 2, "image_encoder": GIB}
BUDGET = Budget(WEIGHTS, encoding=GIB // 4, denoising=3 * GIB, decoding=GIB // 2, step_flops=10**14)


def test_a_row_tells_gib_and_the_whole_schedule() -> None:
    cells = dict(zip(see3d.HEAD, see3d.row(JointPass(18, 512, 512), BUDGET)))
    assert (cells["weights"], cells["step"], cells["peak"], cells["offloaded"]) == ("4.00", "3.00", "7.00", "5.50")
    assert (cells["TFLOP/step"], cells["PFLOP"]) == ("100.0", "5.30")
    assert see3d.evaluations(JointPass(8, 1024, 1024)) == 31
    assert len(see3d.WIDTHS) == len(see3d.HEAD) == len(cells)


@pytest.mark.parametrize(("gib", "said"), [(3, " below the aim"), (9, "NOT below the aim")])
def test_the_aim_is_judged_for_its_own_pass_alone(gib: int, said: str) -> None:
    budget = Budget(WEIGHTS, 0, gib * GIB, 0)
    line = see3d.aim_line({JointPass(18, 512, 512): budget})
    assert line is not None and said in line and "COMPUTED" in line
    assert see3d.aim_line({JointPass(18, 512, 512, torch.float32): budget}) is None


def test_a_run_without_a_gpu_says_that_nothing_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(see3d, "compute_budget", lambda asked: BUDGET)
    assert see3d.main(["--frames", "18"]) == 0
    said = capsys.readouterr().out
    assert "batched" in said and "sequential" in said and "Nothing was measured" in said
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert see3d.main(["--frames", "4", "--size", "64", "--device", "cuda"]) == 1
    assert "is_available() is False" in capsys.readouterr().out
