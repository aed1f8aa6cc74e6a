"""Trials: after going back, nothing tells that there was one, and the same steps give the same bits again."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from closeup_ns.model.exposure import exposed
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.rounds.trials.trial import photograph_psnr, restore_snapshot, run_steps, take_snapshot
from closeup_ns.studio.trainer import CloseupTrainer
from tests.tiny import an_injected_view, run_in
from tests.trainers import MakeTrainer


def bits(value: Any) -> Any:
    """``value`` as plain data that compares bit for bit."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes())
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(item) for item in value]
    return copy.deepcopy(value)


def state_of(trainer: CloseupTrainer) -> dict[str, Any]:
    """Everything that training reads and changes."""
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    return {
        "model": bits(model.state_dict()),
        "optimizers": {
            name: [bits(optimizer.state.get(parameter, {})) for parameter in optimizer.param_groups[0]["params"]]
            for name, optimizer in trainer.optimizers.optimizers.items()
        },
        "rates": {name: o.param_groups[0]["lr"] for name, o in trainer.optimizers.optimizers.items()},
        "schedulers": {name: bits(s.state_dict()) for name, s in trainer.optimizers.schedulers.items()},
        "strategy": bits({**vars(model.strategy), "counts_this_step": None}),  # set anew by every step of a round
        "strategy_state": bits(model.strategy_state),
        "random": bits(torch.get_rng_state()),
        "cameras": [*data.train_unseen_cameras, data.random_generator.getstate()],
        "injection": bits(data.injection_generator.get_state()),
        "step": model.step,
        "kernel": model.kernel,
    }


def assert_parameters_are_optimized(trainer: CloseupTrainer) -> None:
    """Each optimizer holds the very parameters of the model, and state for nothing else."""
    for name, parameter in trainer.pipeline.model.gauss_params.items():
        optimizer = trainer.optimizers.optimizers[name]
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(parameter)]
        assert {id(p) for p in optimizer.state} <= {id(parameter)}
        for moment in optimizer.state.get(parameter, {}).values():
            assert moment.shape in ((), parameter.shape)


def train(trainer: CloseupTrainer, first: int, steps: int) -> None:
    run_steps(run_in(trainer), first, steps, "test")


def inject(trainer: CloseupTrainer) -> None:
    data = trainer.pipeline.datamanager
    data.injected, data.injected_probability = [an_injected_view(data.train_view(0))], 0.3


@pytest.mark.parametrize("warm", [0, 6], ids=["fresh", "with moments"])
def test_back_to_the_bit_also_when_the_number_of_gaussians_changed(trainer: CloseupTrainer, warm: int) -> None:
    model = trainer.pipeline.model
    inject(trainer)
    train(trainer, 0, warm)
    before, count = state_of(trainer), model.num_points
    snapshot = take_snapshot(run_in(trainer))
    train(trainer, 20, 10)
    model.kernel = PixelKernel(0.3, 2, 0.4)
    assert model.num_points != count, "the test needs a change in the number of Gaussians"
    restore_snapshot(run_in(trainer), snapshot)
    assert state_of(trainer) == before
    assert model.num_points == count
    assert_parameters_are_optimized(trainer)
    # Training goes on: the graph of the trial's last step knows the Gaussians that are no longer there.
    parameters = bits(dict(model.gauss_params))
    train(trainer, 0, 2)
    after = bits(dict(model.gauss_params))
    assert all(parameters[name] != after[name] for name in parameters if name != "features_rest")


def test_the_same_steps_give_the_same_bits_again_and_leave_the_snapshot_alone(trainer: CloseupTrainer) -> None:
    """Splits draw random numbers, cameras and injected views are drawn: all of it must come back."""
    inject(trainer)
    train(trainer, 0, 6)
    snapshot = take_snapshot(run_in(trainer))
    kept = bits([snapshot.model, snapshot.optimizers, snapshot.strategy_state])
    outcomes = []
    for _ in range(2):
        train(trainer, 6, 15)
        outcomes.append(state_of(trainer))
        restore_snapshot(run_in(trainer), snapshot)
        assert bits([snapshot.model, snapshot.optimizers, snapshot.strategy_state]) == kept
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["model"] != state_of(trainer)["model"]


def test_per_image_parameters_come_back_too(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(pipeline__model__exposure="on", pipeline__model__camera_optimizer__mode="SO3xR3")
    train(trainer, 0, 3)
    before = state_of(trainer)
    snapshot = take_snapshot(run_in(trainer))
    train(trainer, 3, 4)
    assert state_of(trainer)["model"] != before["model"]
    restore_snapshot(run_in(trainer), snapshot)
    assert state_of(trainer) == before


def test_photographs_are_judged_at_the_models_exposure(make_trainer: MakeTrainer) -> None:
    """A photograph that is only brighter than the model is no worse once its exposure is known."""
    trainer = make_trainer(pipeline__model__exposure="on")
    pipeline = trainer.pipeline
    model, data = pipeline.model, pipeline.datamanager
    rendered = model.render_view(data.train_view(2)).color
    darker = rendered.new_tensor([0.6, 0.7, 0.8]).log()
    data.cached_train[2]["image"] = exposed(rendered, darker)
    model.exposure.log_gain.data.zero_()
    assert photograph_psnr(run_in(trainer), [2]) < 30
    model.exposure.log_gain.data[2:4] = torch.stack([darker, -darker])  # of mean 0
    assert photograph_psnr(run_in(trainer), [2]) > 60
