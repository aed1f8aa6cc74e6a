"""Base against refined: the swap shows the other Gaussians and leaves no trace, whatever happens meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from closeup_ns.errors import CheckpointError
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.viewer.picture.base_model import BaseModel, base_checkpoint


def test_the_base_model_is_shown_and_then_forgotten(trainer: CloseupTrainer) -> None:
    model, view = trainer.pipeline.model, trainer.pipeline.datamanager.train_view(0)
    trainer.save_checkpoint(59)
    before = model.render_view(view).color
    base = BaseModel.load(base_checkpoint(trainer.checkpoint_dir, 60), trainer.pipeline.device)
    with torch.no_grad():  # another model now, with fewer Gaussians and another kernel
        for parameter in model.gauss_params.values():
            parameter.data = parameter.data[::2] + 0.01
            parameter.grad = torch.ones_like(parameter)
    model.start_supersampling()
    after, kernel = model.render_view(view).color, model.kernel
    assert float((after - before).abs().max()) > 0.01
    own = dict(model.gauss_params.items())
    values = {name: parameter.data for name, parameter in model.gauss_params.items()}
    with base.shown_by(model):
        torch.testing.assert_close(model.render_view(view).color, before)
    with pytest.raises(ZeroDivisionError), base.shown_by(model):
        _ = 1 / 0
    torch.testing.assert_close(model.render_view(view).color, after, rtol=0, atol=0)
    assert model.kernel == kernel
    assert all(model.gauss_params[name] is own[name] for name in own), "the optimizers hold these parameters"
    assert all(model.gauss_params[name].data.data_ptr() == values[name].data_ptr() for name in own)


def test_a_checkpoint_that_was_not_kept_or_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"step-000000059\.ckpt.*save-only-latest-checkpoint False"):
        base_checkpoint(tmp_path, 60)
    path = tmp_path / "step-000000059.ckpt"
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=path.name):
        BaseModel.load(base_checkpoint(tmp_path, 60), "cpu")
