"""The check's See3D stage as far as it goes without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import _see3d as passes
from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from tools import _see3d, gpu_check
from tools._report import CheckFailed, Skipped


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


def test_without_the_packages_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGES", ("no_such_package",))
    with pytest.raises(Skipped, match=r"closeup-ns\[see3d\]"):
        _see3d.make_pipeline(on_gpu=False)


def test_random_weights_keep_norms_idle_and_depend_on_the_seed() -> None:
    towers = [torch.nn.Sequential(torch.nn.Linear(100, 50), torch.nn.LayerNorm(50)) for _ in range(3)]
    for tower, seed in zip(towers, (0, 0, 1)):
        passes.fill(tower, torch.Generator().manual_seed(seed))
    first, same, other = (tower[0].weight for tower in towers)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(0.1, rel=0.05)
    assert (towers[0][0].bias == 0).all() and (towers[0][1].weight == 1).all() and (towers[0][1].bias == 0).all()
