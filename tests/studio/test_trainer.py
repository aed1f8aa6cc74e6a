"""The trainer: checkpoints whole or not at all, rounds that come along, refusals in words."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.atomic import PARTIAL
from closeup_ns.errors import CheckpointError, DataError, DiskError, PlanningError, RefinerError
from closeup_ns.studio import compatibility
from closeup_ns.studio.trainer import CloseupTrainer
from tests.data.folders import write_ply
from tests.integration.captures import SIZE, write_transforms
from tests.trainers import MakeTrainer

# Checkpoints


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_a_checkpoint_appears_whole_or_not_at_all(
    trainer: CloseupTrainer, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    trainer.save_checkpoint(3)
    before = {path.name: path.read_bytes() for path in trainer.checkpoint_dir.iterdir()}
    assert list(before) == ["step-000000003.ckpt"]

    def full(_: Any, path: Path) -> None:
        Path(path).write_bytes(b"half a checkpoint")
        raise failure

    monkeypatch.setattr(torch, "save", full)
    folder = trainer.checkpoint_dir
    for step in (3, 4):
        with pytest.raises(DiskError, match=rf"step-{step:09d}\.ckpt: .*Free space there"):
            trainer.save_checkpoint(step)
    assert trainer.checkpoint_dir == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not list(folder.parent.glob(f"{PARTIAL}*"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state["pipeline"]["_model.gauss_params.means"][:7].fill_(float("nan")), "21 values of .*means"),
        (lambda state: state["pipeline"].pop("_model.gauss_params.means"), "holds no Gaussians"),
        (
            lambda state: state["pipeline"].update({"_model.gauss_params.features_rest": torch.zeros(576, 8, 3)}),
            "sh-degree",
        ),
        (
            lambda state: state["pipeline"].update({"_model.gauss_params.quats": torch.zeros(3, 4)}),
            "size mismatch.*Load an",
        ),
        (lambda state: state.pop("scalers"), "lacks 'scalers'"),
        (lambda state: state["pipeline"].update({"_model.exposure.log_gain": torch.zeros(7, 3)}), "another scene"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_with_the_reason(
    trainer: CloseupTrainer, make_trainer: MakeTrainer, tmp_path: Path, change: Any, reason: str
) -> None:
    trainer.save_checkpoint(3)
    state = torch.load(trainer.checkpoint_dir / "step-000000003.ckpt", weights_only=True)
    change(state)
    path = tmp_path / "changed.ckpt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=reason):
        make_trainer(load_checkpoint=path, output=tmp_path / "other")


def test_rounds_that_have_nothing_to_say_are_not_planned(
    make_trainer: MakeTrainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither originals, though there are some, nor a refiner."""
    write_transforms(tmp_path / "finer", finer=3)
    trainer = make_trainer(
        data=tmp_path / "finer", pipeline__datamanager__dataparser__max_image_size=SIZE[0],
        pipeline__originals__enabled=False, pipeline__refiner__kind="none",
    )  # fmt: skip
    assert "Rounds: 0 of 2 are planned" in " ".join(capsys.readouterr().out.split())
    assert trainer.schedule.rounds == 0 and trainer.config.max_num_iterations == 60


def test_a_step_that_was_asked_for_is_loaded_where_older_checkpoints_are_kept(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    first = make_trainer(save_only_latest_checkpoint=False)

    def load(step: int | None) -> CloseupTrainer:
        return make_trainer(load_dir=first.checkpoint_dir, load_step=step, output=tmp_path / f"o{step}")

    for step in (3, 5):
        first.save_checkpoint(step)
    assert [load(step)._start_step for step in (3, None)] == [4, 6]
    with pytest.raises(CheckpointError, match=r"step-000000004\.ckpt does not exist"):
        load(4)
    first.config.save_only_latest_checkpoint = True
    first.save_checkpoint(7)
    assert [path.name for path in first.checkpoint_dir.iterdir()] == ["step-000000007.ckpt"]


@pytest.mark.parametrize("points", [20, 100])
def test_a_handful_of_points_is_not_all_that_there_is_to_start_from(
    points: int, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    scene = write_transforms(tmp_path)
    write_ply(tmp_path / "sparse_pc.ply", scene.xyz[:points], scene.rgb[:points])
    trainer = make_trainer(data=tmp_path, output=tmp_path / "out", pipeline__model__num_random=300)
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    cloud = data.train_dataparser_outputs.metadata["points3D_xyz"]
    assert model.num_points == (320 if points == 20 else 100)
    assert torch.equal(model.means.detach()[:points], cloud)
    optimized = trainer.optimizers.optimizers["means"].param_groups[0]["params"]
    assert optimized[0] is model.gauss_params["means"]


# Event writers


class Failing:
    """A tensorboard on a full disk."""

    def write_scalar(self, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_event_writer_that_fails_does_not_end_the_training(
    make_trainer: MakeTrainer, capfd: pytest.CaptureFixture[str]
) -> None:
    from nerfstudio.utils import writer

    trainer = make_trainer()
    writer.EVENT_STORAGE.clear()
    writer.EVENT_WRITERS[:] = [Failing()]
    compatibility.forgive_event_writers()
    for _ in range(2):
        writer.put_scalar("loss", 1.0, 1)
        writer.write_out_storage()
    assert capfd.readouterr().out.count("Failing fails") == 1
    assert trainer.step == 0


# What would otherwise be found out after hours of base phase


@pytest.mark.parametrize(
    ("option", "value", "error", "words"),
    [
        ("refiner__kind", "command", RefinerError, "the refiner command cannot run here"),
        ("target__xyz", ((0.0, 0.0, 60.0),), PlanningError, "behind or beside every camera"),
        ("frontier_cameras", Path("nowhere.json"), DataError, "nowhere.json"),
    ],
)
def test_what_no_round_can_work_with_is_refused_before_the_first_step(
    option: str, value: Any, error: type[Exception], words: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        make_trainer(**{f"pipeline__{option}": value})
    make_trainer(**{f"pipeline__{option}": value}, pipeline__schedule__rounds=0, output=tmp_path / "no rounds")
