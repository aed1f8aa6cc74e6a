"""Native crops of held-out photographs: what is wrong with one is said, and few are kept."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.planning.targets import resolve_targets
from closeup_ns.rounds.reporting import held_out
from closeup_ns.rounds.reporting.held_out import HeldOut, held_out_crops, look, plan_held_out
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import psnr
from tests.integration.captures import SIZE, write_transforms
from tests.tiny import run_in
from tests.trainers import MakeTrainer


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Ten photographs to train on and two held out, of which the originals are three times finer."""
    write_transforms(tmp_path / "capture", finer=3)
    return tmp_path / "capture"


def run_on(capture: Path, make: MakeTrainer) -> tuple[Run, torch.Tensor]:
    """An untrained run, and where it would come close to."""
    run = run_in(make(data=capture, pipeline__datamanager__dataparser__max_image_size=SIZE[0]))
    data = run.photographs
    return run, resolve_targets(run.settings.target, data.photograph_names(), data.train_views(), run.render)[0].point


def test_an_original_that_cannot_be_used_is_named(
    capture: Path, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off, swapped = (capture / f"images/frame_{index:05d}.png" for index in (3, 9))
    run, target = run_on(capture, make_trainer)
    cut_off.write_bytes(cut_off.read_bytes()[:2000])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (144, 192, 3), np.uint8)).save(swapped)
    capsys.readouterr()
    found = look(run, 1, plan_held_out(run, 1, target))
    assert found.psnr is None and not found.crops
    said = capsys.readouterr().out
    first, second = (line for line in said.splitlines() if line.startswith("Held-out"))
    assert first.startswith("Held-out photograph frame_00003.png is not scored at 3x: ") and str(cut_off) in first
    assert second.startswith("Held-out photograph frame_00009.png is not scored at 3x: ")
    assert f"{swapped} shows another picture" in second


def test_one_crop_is_in_memory_at_a_time(
    capture: Path, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, target = run_on(capture, make_trainer)
    crops = held_out_crops(run, 1, target)
    assert len(crops) == 2
    expected = sum(psnr(crop.render(run), crop.image) for crop in crops) / 2
    del crops
    alive, render = weakref.WeakSet[HeldOut](), HeldOut.render

    def counting(self: HeldOut, run: Run, registered: bool = False) -> torch.Tensor:
        alive.add(self)
        assert len(alive) == 1
        return render(self, run, registered)

    monkeypatch.setattr(HeldOut, "render", counting)
    monkeypatch.setattr(held_out, "SHEET_ROWS", 1)
    found = look(run, 1, plan_held_out(run, 1, target))
    assert found.psnr == pytest.approx(expected) and len(found.crops) == 2
    assert list(found.pictures) == [0] and found.pictures[0][0] == "frame_00003.png"
    assert all(picture.dtype == torch.uint8 for picture in found.pictures[0][1:])
