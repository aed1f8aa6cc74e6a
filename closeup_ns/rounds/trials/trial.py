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

from closeup_ns.model.kernel import PixelKernel
from closeup_ns.progress import track
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.views import NativeView
from closeup_ns.views.psnr import mean_of_numbers, psnr


@dataclass
class Snapshot:
    """Everything that a training step changes."""

    tensors: dict[str, Tensor]
    optimizers: dict[str, list[dict[str, Any]]]
    learning_rates: dict[str, list[float]]
    schedulers: dict[str, dict[str, Any]]
    strategy: Any
    strategy_state: dict[str, Any]
    sampler: Any
    random: Tensor
    kernel: PixelKernel
    native_kernels: Tensor
    footprint: Tensor
    step: int


def take_snapshot(run: Run) -> Snapshot:
    """Copy the training state."""
    assert run.trainer is not None
    model, data, optimizers = run.model, run.photographs, run.trainer.optimizers
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
        sampler=data.sampler_state(),
        random=torch.get_rng_state(),
        kernel=model.kernel,
        native_kernels=model.native_kernels.clone(),
        footprint=model.footprint.clone(),
        step=model.step,
    )


def restore_snapshot(run: Run, snapshot: Snapshot) -> None:
    """Put the training state back, bit for bit, also when the number of Gaussians changed meanwhile."""
    assert run.trainer is not None
    model, optimizers = run.model, run.trainer.optimizers
    for name in model.gauss_params:
        # New parameters, as gsplat makes them when it densifies: a graph that is still alive somewhere would go on
        # expecting gradients of as many Gaussians as there were.
        model.gauss_params[name] = nn.Parameter(snapshot.tensors[f"gauss_params.{name}"].clone())
    for name, parameter in model.named_parameters():
        parameter.data = snapshot.tensors[name].clone()
        parameter.grad = None
    for name, optimizer in optimizers.optimizers.items():
        parameters = [model.gauss_params[name]] if name in model.gauss_params else optimizer.param_groups[0]["params"]
        optimizer.param_groups[0]["params"] = parameters
        optimizer.state.clear()
        for parameter, state in zip(parameters, snapshot.optimizers[name]):
            if state:
                optimizer.state[parameter] = copy.deepcopy(state)
        for group, rate in zip(optimizer.param_groups, snapshot.learning_rates[name]):
            group["lr"] = rate
    for name, scheduler in optimizers.schedulers.items():
        scheduler.load_state_dict(copy.deepcopy(snapshot.schedulers[name]))
    model.strategy, model.strategy_state = snapshot.strategy, copy.deepcopy(snapshot.strategy_state)
    run.photographs.restore_sampler(snapshot.sampler)
    torch.set_rng_state(snapshot.random)
    model.kernel, model.step = snapshot.kernel, snapshot.step
    model.native_kernels = snapshot.native_kernels.clone()
    model.footprint = snapshot.footprint.clone()


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
def native_psnr(run: Run, number: int, indices: Sequence[int], views: Sequence[NativeView]) -> float:
    """Mean PSNR in dB of round ``number``'s native views of photographs ``indices``, as `photograph_psnr`."""
    data, scores = run.photographs, []
    for native in views:
        if native.round_index == number and native.photograph in indices:
            image, counted = data.native_image(native)
            render = run.model.render_view(data.native_view(native), stream=number).color
            scores.append(psnr(render, run.model.unexposed(image, native.photograph), counted))
    return mean_of_numbers(scores)


@torch.no_grad()
def eval_psnr(run: Run) -> float | None:
    """Mean PSNR in dB of the evaluation split, or None where there is none. For reports, never for decisions."""
    photographs = run.photographs.eval_photographs()
    if not photographs:
        return None
    return mean_of_numbers(psnr(run.model.render_view(view).color, image, mask) for view, image, mask in photographs)
