"""Close-ups that ns-eval judges: where they are, and that they are reproducible and none of the training's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from closeup_ns import progress
from closeup_ns.errors import PlanningError
from closeup_ns.rounds.reporting.held_out import held_out_rounds
from closeup_ns.studio.close_metrics import turned_views
from closeup_ns.views.warp import project
from tests.integration.captures import SIZE, write_transforms
from tests.scenes import facing_views
from tests.tiny import run_in
from tests.trainers import MakeTrainer

TARGET = torch.tensor([0.1, -0.1, 4.0], dtype=torch.float64)


def made(seed: int = 0) -> list:
    return turned_views(facing_views(9), TARGET, 9.0, torch.Generator().manual_seed(seed))


def test_close_ups_look_at_the_target_from_the_right_distance_within_the_angle():
    views = facing_views(9)
    directions = torch.stack([(view.position - TARGET) / (view.position - TARGET).norm() for view in views])
    distances = torch.stack([(view.position - TARGET).norm() for view in views]) / 9.0
    found = made()
    assert len(found) == 5
    for view in found:
        offset = view.position - TARGET
        assert float((distances - offset.norm()).abs().min()) < 1e-9
        cosine = (directions @ (offset / offset.norm())).max()
        assert 1e-6 < math.degrees(math.acos(min(1.0, float(cosine)))) <= 8.0
        uv, _ = project(view, TARGET)
        assert torch.allclose(uv, view.K[:2, 2], atol=1e-6)
        assert torch.allclose(view.c2w[:3, :3].T @ view.c2w[:3, :3], torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_the_same_seed_gives_the_same_cameras_and_another_seed_others():
    first, again, other = made(0), made(0), made(1)
    assert all(torch.equal(a.c2w, b.c2w) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a.c2w, b.c2w) for a, b in zip(first, other, strict=True))


def test_a_target_that_nobody_sees_is_an_error():
    with pytest.raises(PlanningError, match="another target"):
        turned_views(facing_views(3), -TARGET, 3.0, torch.Generator().manual_seed(0))


def test_without_a_terminal_ns_eval_says_how_far_it_is_and_what_is_missing(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photographs without EXIF, whose originals reach 3x."""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    write_transforms(tmp_path / "finer", finer=3)
    trainer = make_trainer(data=tmp_path / "finer", pipeline__datamanager__dataparser__max_image_size=SIZE[0])
    assert list(held_out_rounds(run_in(trainer))) == [1]
    pipeline = trainer.pipeline
    pipeline.rounds = None  # as in ns-eval
    metrics = pipeline.get_average_eval_image_metrics()
    said = capsys.readouterr().out
    for line in (
        "held-out photographs, far: 1 of 2",
        "held-out photographs, 3x: 2 of 2",
        "depth of photographs: 10 of 10",
        "close-ups: 1 of ",
    ):
        assert line in said, line
    reason = "EXIF does not say soundly how each photograph was exposed"
    assert metrics["missing"]["psnr_predicted_exposure"] == reason
    assert f"metric psnr_predicted_exposure is missing: {reason}" in said
