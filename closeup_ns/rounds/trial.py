"""Trials: train a copy for a while under other conditions, look, and go back.

Every choice that the method makes while it trains (the pixel kernel, whether a round is kept) is made by a trial
against a control on photographs that neither arm trained on. A trial never changes the model it started from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from nerfstudio.engine.trainer import Trainer
from torch import Tensor, nn

from closeup_ns.progress import track
from closeup_ns.rounds.next_round import give_way

if TYPE_CHECKING:
    from closeup_ns.studio.pipeline import CloseupPipeline


@dataclass
class Snapshot:
    """Everything that a training step changes."""

    tensors: dict[str, Tensor]
    optimizers: dict[str, list[dict[str, Any]]]
    learning_rates: dict[str, list[float]]
    schedulers: dict[str, dict[str, Any]]
    strategy: Any
    strategy_state: dict[str, Any]
    sampler: tuple[list[int], Any, Tensor]
    random: Tensor
    kernel: PixelKernel
    footprint: Tensor
    step: int


def take_snapshot(trainer: Trainer) -> Snapshot:
    """Copy the training state."""
    pipeline: CloseupPipeline = trainer.pipeline  # type: ignore[assignment]
    model, data = pipeline.model, pipeline.datamanager
    optimizers = trainer.optimizers
    return Snapshot(
        tensors={name: parameter.detach().clone() for name, parameter in model.named_parameters()},
        optimizers={
            name: [copy.deepcopy(optimizer.state.get(p, {})) for p in optimizer.param_groups[0]["params"]]
            for name, optimizer in optimizers.optimizers.items()
        },
        learning_rates={
            name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in optimizers.optimizers.items()
        },
        schedulers={name: copy.deepcopy(s.state_dict()) for name, s in optimizers.schedulers.items()},
        strategy=model.strategy,
        strategy_state=copy.deepcopy(model.strategy_state),
        sampler=(
            list(data.train_unseen_cameras),
            data.random_generator.getstate() if hasattr(data, "random_generator") else None,
            data.injection_generator.get_state(),
        ),
        random=torch.get_rng_state(),
        kernel=model.kernel,
        footprint=model.footprint.clone(),
        step=model.step,
    )


def restore_snapshot(trainer: Trainer, snapshot: Snapshot) -> None:
    """Put the training state back, bit for bit, also when the number of Gaussians changed meanwhile."""
    pipeline: CloseupPipeline = trainer.pipeline  # type: ignore[assignment]
    model, data = pipeline.model, pipeline.datamanager
    for name in model.gauss_params:
        # New parameters, as gsplat makes them when it densifies: a graph that is still alive somewhere would go on
        # expecting gradients of as many Gaussians as there were.
        model.gauss_params[name] = nn.Parameter(snapshot.tensors[f"gauss_params.{name}"].clone())
    for name, parameter in model.named_parameters():
        parameter.data = snapshot.tensors[name].clone()
        parameter.grad = None
    for name, optimizer in trainer.optimizers.optimizers.items():
        parameters = [model.gauss_params[name]] if name in model.gauss_params else optimizer.param_groups[0]["params"]
        optimizer.param_groups[0]["params"] = parameters
        optimizer.state.clear()
        for parameter, state in zip(parameters, snapshot.optimizers[name]):
            if state:
                optimizer.state[parameter] = copy.deepcopy(state)
        for group, rate in zip(optimizer.param_groups, snapshot.learning_rates[name]):
            group["lr"] = rate
    for name, scheduler in trainer.optimizers.schedulers.items():
        scheduler.load_state_dict(copy.deepcopy(snapshot.schedulers[name]))
    model.strategy, model.strategy_state = snapshot.strategy, copy.deepcopy(snapshot.strategy_state)
    data.train_unseen_cameras = list(snapshot.sampler[0])
    if snapshot.sampler[1] is not None:
        data.random_generator.setstate(snapshot.sampler[1])
    data.injection_generator.set_state(snapshot.sampler[2])
    torch.set_rng_state(snapshot.random)
    model.kernel, model.step = snapshot.kernel, snapshot.step
    model.footprint = snapshot.footprint.clone()


def run_steps(trainer: Trainer, first_step: int, steps: int, label: str) -> None:
    """Train for ``steps`` steps outside the trainer's own loop, with the model's step hooks."""
    pipeline: CloseupPipeline = trainer.pipeline  # type: ignore[assignment]
    model = pipeline.model
    for step in track(range(first_step, first_step + steps), label):
        give_way(trainer)
        pipeline.train()
        model.step_cb(trainer.optimizers, step)
        trainer.train_iteration(step)
        model.step_post_backward(step)


@torch.no_grad()
def photograph_psnr(pipeline: CloseupPipeline, indices: Sequence[int]) -> float:
    """Mean PSNR in dB of training photographs ``indices`` at the model's own exposure, on the pixels that count.

    One whose mask leaves nothing says nothing; NaN where none says anything.
    """
    model, data = pipeline.model, pipeline.datamanager
    scores = []
    for index in indices:
        photograph = data.photograph(index)
        if model.exposure is not None:
            photograph = model.exposure.undo(photograph, index)
        rendered = model.render_view(data.train_view(index))
        scores.append(psnr(rendered.color, photograph, data.counted(index)))
    return _mean(scores)


def psnr(image: Tensor, reference: Tensor, mask: Tensor | None = None) -> float:
    """PSNR in dB of images in [0, 1]; over ``mask`` [H, W] where it is given. NaN when the mask is empty."""
    error = (image - reference).square().mean(-1)
    if mask is not None:
        error = error[mask]
    if error.numel() == 0:
        return float("nan")
    return -10 * math.log10(max(float(error.mean()), 1e-12))


@torch.no_grad()
def eval_psnr(pipeline: CloseupPipeline) -> float | None:
    """Mean PSNR in dB of the evaluation split, or None where there is none. For reports, never for decisions."""
    data = pipeline.datamanager
    if len(data.eval_dataset) == 0:
        return None
    return _mean(
        [psnr(pipeline.model.render_view(view).color, image, mask) for view, image, mask in data.eval_photographs()]
    )


def _mean(scores: Sequence[float]) -> float:
    """Mean of the scores that are numbers; NaN of none."""
    finite = [score for score in scores if not math.isnan(score)]
    return sum(finite) / len(finite) if finite else math.nan
