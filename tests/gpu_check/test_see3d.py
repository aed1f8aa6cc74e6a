"""The check's See3D stage as far as it goes without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import _see3d as passes
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from tools import _see3d, gpu_check
from tools._report import CheckFailed


@pytest.fixture(scope="module")
def pipeline() -> See3DPipeline:
    return _see3d.make_pipeline(on_gpu=False)


def test_a_dry_run_goes_through_every_row(tmp_path: Path) -> None:
    assert gpu_check.main(["--dry-run", "--output", str(tmp_path), "--stages", "see3d"]) == 0
    rows = json.loads((tmp_path / "gpu_check.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["reported", "ok"]
    assert rows[0]["figures"]["pass_s"] > 0 and 0 < rows[1]["figures"]["relative_error"] < 0.03


def test_a_step_that_differs_by_more_than_rounding_fails(
    pipeline: See3DPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = _see3d._predict

    def wrong_in_half(unet: torch.nn.Module, frames: int, side: int) -> torch.Tensor:
        told = original(unet, frames, side)  # type: ignore[arg-type]
        return told * 1.05 if next(unet.parameters()).dtype == torch.float16 else told

    monkeypatch.setattr(_see3d, "_predict", wrong_in_half)
    with pytest.raises(CheckFailed, match="relative error") as caught:
        _see3d.compare_step(pipeline)
    assert caught.value.figures["relative_error"] == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    ("peak", "finite", "said"), [(13e9, True, "13.0 GB, at most 12"), (0, False, "not every pixel")]
)
def test_memory_above_the_aim_and_nan_fail(
    pipeline: See3DPipeline, monkeypatch: pytest.MonkeyPatch, peak: int, finite: bool, said: str
) -> None:
    monkeypatch.setattr(passes, "measure", lambda *_told: passes.Measured(0.1, 1.0, int(peak), finite))
    with pytest.raises(CheckFailed, match=said):
        _see3d.measure_pass(pipeline)


def test_a_pass_is_measured_step_by_step(pipeline: See3DPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of our own: the first step, which comes with encoding and warms up, is no step to go by."""
    ticks = iter([0.0, 10.0, 11.0, 13.0, 14.0])
    monkeypatch.setattr(passes, "_now", lambda _device: next(ticks))
    told = passes.measure(pipeline, 2, 64, 2, torch.device("cpu"))
    assert (told.step_seconds, told.around_seconds, told.seconds(53)) == (1.5, 9.5, 89.0)
    assert told.is_finite and told.peak_bytes == 0
