"""Checkpoints and data of a run: found wherever the run is, refused where they cannot be trusted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.errors import CheckpointError
from closeup_ns.studio.checkpoints import locate, read_checkpoint
from tests.tiny import tiny_config

WHOLE: dict[str, Any] = {
    "pipeline": {
        "_model.gauss_params.means": torch.zeros(9, 3),
        "_model.screen_kernel": torch.tensor([0.1, torch.inf]),
    },
    "step": 1,
    "optimizers": {"means": {"state": {0: {"exp_avg": torch.zeros(9, 3)}}}},
}


def resaved(**changes: Any) -> Callable[[Path], None]:
    return lambda path: torch.save({**WHOLE, **changes}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "cut short"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "cut short"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.write_bytes(b"not a checkpoint"), "cut short"),
        (lambda path: torch.save([1], path), "not a checkpoint"),
        (lambda path: torch.save({"pipeline": {}, "step": 1}, path), "lacks 'optimizers'"),
        (lambda path: path.unlink(), "does not exist"),
        (resaved(pipeline={"_model.gauss_params.means": torch.full((9, 3), torch.nan)}), "27 values of .*means are no"),
        (resaved(pipeline={"_model.gauss_params.means": torch.full((9, 3), torch.inf)}), "27 values of .*means are no"),
        (resaved(pipeline={"_model.screen_kernel": torch.tensor(torch.nan)}), "1 values of .*screen_kernel"),
        (resaved(pipeline="x"), "its pipeline is 'x'"),
        (resaved(pipeline={"_model.gauss_params.means": 0.5}), "means in its pipeline is no tensor"),
        (resaved(step=2.5), r"its step is 2\.5"),
        (resaved(optimizers={"means": {"state": {0: {"exp_avg": torch.tensor([torch.inf])}}}}), "exp_avg"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, damage: Callable[[Path], Any], said: str) -> None:
    path = tmp_path / "step-000000001.ckpt"
    torch.save(WHOLE, path)
    assert read_checkpoint(path)["step"] == 1
    damage(path)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A run's folder in ``project``, beside the capture that it was trained on."""
    (tmp_path / "project/data/capture").mkdir(parents=True)
    models = tiny_config(tmp_path / "project/data/capture", tmp_path / "project/outputs").get_checkpoint_dir()
    models.mkdir(parents=True)
    torch.save(WHOLE, models / "step-000000001.ckpt")
    return models.parent


def photographs_of(folder: Path, tmp_path: Path, data: Path | None = None) -> Path:
    """Where the photographs are of the run that was trained in ``project`` and is in ``folder`` now."""
    config = tiny_config(tmp_path / "project/data/capture", tmp_path / "project/outputs")
    locate(config, folder / "config.yml", data)
    assert config.get_base_dir() == folder and config.get_checkpoint_dir() == folder / "nerfstudio_models"
    return config.pipeline.datamanager.data


def test_a_run_is_found_where_it_was_trained_and_where_it_was_copied_to(project: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(project, tmp_path / "copy")
    for folder in (project, copy):
        assert photographs_of(folder, tmp_path) == tmp_path / "project/data/capture"
    shutil.rmtree(copy / "nerfstudio_models")
    with pytest.raises(CheckpointError, match=f"no checkpoint.* in {copy}"):
        photographs_of(copy, tmp_path)


def test_a_project_that_was_moved_as_a_whole_finds_its_photographs(project: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "project", tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / project.relative_to(tmp_path / "project")
    assert photographs_of(moved, tmp_path).samefile(tmp_path / "elsewhere/data/capture")


@pytest.mark.parametrize("place", ["copy/capture", "capture"])
def test_photographs_beside_a_run_are_found(project: Path, tmp_path: Path, place: str) -> None:
    copy = shutil.copytree(project, tmp_path / "copy")
    shutil.move(tmp_path / "project/data/capture", tmp_path / place)
    assert photographs_of(copy, tmp_path) == tmp_path / place


def test_photographs_that_are_nowhere_can_be_given(project: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "project/data/capture", tmp_path / "far")
    with pytest.raises(CheckpointError, match=r"the photographs of .*data/capture nor at .*--data FOLDER.*put or link"):
        photographs_of(project, tmp_path)
    assert photographs_of(project, tmp_path, tmp_path / "far") == tmp_path / "far"
    with pytest.raises(CheckpointError, match="not at .*/nowhere"):
        photographs_of(project, tmp_path, tmp_path / "nowhere")
