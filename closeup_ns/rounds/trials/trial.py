"""Trials: train a copy for a while under other conditions, look, and go back.

Every choice that the method makes while it trains (the pixel kernel, whether a round is kept) is made by a trial
against a control on photographs that neither arm trained on. A trial never changes the model it started from.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from closeup_ns.progress import track
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import mean_of_numbers, mean_or_none, psnr


@dataclass
class Snapshot:
    """Everything that a training step changes."""

    model: dict[str, Tensor]
    optimizers: dict[str, dict[str, Any]]
    schedulers: dict[str, dict[str, Any]]
    strategy: Any
    strategy_state: dict[str, Any]
    sampler: Any
    random: Tensor
    step: int


def take_snapshot(run: Run) -> Snapshot:
    """Copy the training state."""
    assert run.trainer is not None
    model, optimizers = run.model, run.trainer.optimizers
    return Snapshot(
        model={name: value.clone() for name, value in model.state_dict().items()},
        optimizers={name: copy.deepcopy(one.state_dict()) for name, one in optimizers.optimizers.items()},
        schedulers={name: copy.deepcopy(one.state_dict()) for name, one in optimizers.schedulers.items()},
        strategy=model.strategy,
        strategy_state=copy.deepcopy(model.strategy_state),
        sampler=run.photographs.sampler_state(),
        random=torch.get_rng_state(),
        step=model.step,
    )


def restore_snapshot(run: Run, snapshot: Snapshot) -> None:
    """Put the training state back, bit for bit, also when the number of Gaussians changed meanwhile."""
    assert run.trainer is not None
    model, optimizers = run.model, run.trainer.optimizers
    for name, parameter in list(model.gauss_params.items()):
        # New parameters, as gsplat makes them when it densifies: a graph that is still alive somewhere would go on
        # expecting gradients of as many Gaussians as there were.
        model.gauss_params[name] = nn.Parameter(parameter.detach())
        optimizers.optimizers[name].param_groups[0]["params"] = [model.gauss_params[name]]
    model.load_state_dict(dict(snapshot.model))
    model.zero_grad()
    for name, optimizer in optimizers.optimizers.items():
        optimizer.load_state_dict(copy.deepcopy(snapshot.optimizers[name]))
    for name, scheduler in optimizers.schedulers.items():
        scheduler.load_state_dict(copy.deepcopy(snapshot.schedulers[name]))
    model.strategy, model.strategy_state = snapshot.strategy, copy.deepcopy(snapshot.strategy_state)
    run.photographs.restore_sampler(snapshot.sampler)
    torch.set_rng_state(snapshot.random)
    model.step = snapshot.step


def run_steps(run: Run, first_step: int, steps: int, label: str) -> None:
    """Train for ``steps`` steps outside the trainer's own loop, with the model's step hooks."""
    trainer, model = run.trainer, run.model
    assert trainer is not None
    for step in track(range(first_step, first_step + steps), label):
        run.give_way()
        trainer.pipeline.train()
        model.step_cb(trainer.optimizers, step)
        trainer.train_iteration(step)
        model.step_post_backward(step)


@torch.no_grad()
def photograph_psnr(run: Run, indices: Sequence[int]) -> float:
    """Mean PSNR in dB of training photographs ``indices`` at the model's own exposure, on the pixels that count.

    One whose mask leaves nothing says nothing; NaN where none says anything.
    """
    data = run.photographs
    return mean_of_numbers(
        psnr(
            run.model.render_view(data.train_view(index)).color,
            run.model.unexposed(data.photograph(index), index),
            data.counted(index),
        )
        for index in indices
    )


@torch.no_grad()
def native_psnr(run: Run, number: int, indices: Sequence[int]) -> float:
    """Mean PSNR in dB of round ``number``'s native views of photographs ``indices``, as `photograph_psnr`."""
    data, scores = run.photographs, []
    for native in run.native_views(number):
        if native.photograph in indices:
            image, counted = data.native_image(native)
            render = run.model.render_view(data.native_view(native), stream=number).color
            scores.append(psnr(render, run.model.unexposed(image, native.photograph), counted))
    return mean_of_numbers(scores)


@torch.no_grad()
def eval_psnr(run: Run) -> float | None:
    """Mean PSNR in dB of the evaluation split, or None where nothing of it counts. For reports, never for decisions."""
    photographs = run.photographs.eval_photographs()
    return mean_or_none(psnr(run.model.render_view(view).color, image, mask) for view, image, mask in photographs)
