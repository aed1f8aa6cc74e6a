"""Captures that are unlike the usual ones, through a whole short run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.rounds.store.rounds import RoundStore
from tests.data.folders import write_ply
from tests.integration.captures import write_transforms
from tests.trainers import MakeTrainer

SHORT: dict[str, Any] = {
    "pipeline__schedule__base_steps": 20,
    "pipeline__schedule__rounds": 1,
    "pipeline__schedule__round_steps": 4,
    "pipeline__acceptance__enabled": False,
}


def test_photographs_of_one_name_in_two_folders(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    """Two cameras that both count from one: each photograph is itself, also in plans."""
    capture = tmp_path / "capture"
    write_transforms(capture)
    meta = json.loads((capture / "transforms.json").read_text())
    for index, frame in enumerate(meta["frames"]):
        old = capture / frame["file_path"]
        frame["file_path"] = f"images/{'süd flügel' if index % 2 else 'nord'}/IMG {index // 2}.png"
        (capture / frame["file_path"]).parent.mkdir(exist_ok=True)
        old.rename(capture / frame["file_path"])
    kept = {key: value for key, value in meta.items() if not key.endswith("_filenames")}
    (capture / "transforms.json").write_text(json.dumps(kept))
    trainer = make_trainer(data=capture, **SHORT)
    names = trainer.pipeline.datamanager.photograph_names()
    assert len(set(names)) == len(names) and "nord/IMG 0.png" in names and "süd flügel/IMG 0.png" in names
    trainer.train()
    plan = RoundStore(trainer.base_dir / "rounds").load_plan(1)
    assert plan is not None
    assert {anchor.name.removeprefix("train/") for anchor in plan.plans[0].anchors} <= set(names)


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
