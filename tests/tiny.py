"""A whole trainer on a tiny capture, built in this process: what `ns-train closeup-gs-quick` builds, made small."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.plugins.types import MethodSpecification

from closeup_ns.method_config import closeup_gs_quick
from closeup_ns.model.losses import InjectedTarget
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.views import InjectedView
from closeup_ns.studio.trainer import CloseupTrainer, CloseupTrainerConfig
from closeup_ns.views.view import View

SMALL: dict[str, Any] = {
    "vis": "tensorboard",
    "timestamp": "t",
    "experiment_name": "e",
    "logging.local_writer.enable": False,
    "logging.profiler": "none",
    "pipeline.schedule.base_steps": 60,
    "pipeline.schedule.rounds": 2,
    "pipeline.schedule.round_steps": 15,
    "pipeline.refiner.kind": "reliable",
    "pipeline.planner.anchors": 2,
    "pipeline.planner.updates": 2,
    "pipeline.planner.candidates": 12,
    "pipeline.model.num_random": 2000,
    "pipeline.model.num_downscales": 0,
    "pipeline.model.warmup_length": 4,
    "pipeline.model.refine_every": 4,
    "pipeline.model.densify_grad_thresh": 1e-4,
    "pipeline.model.max_gaussians": 3000,
}
"""Everything that makes a run short. Densification starts at once, so that the number of Gaussians changes."""


def tiny_config(
    data: Path, output: Path, method: MethodSpecification = closeup_gs_quick, **changes: Any
) -> CloseupTrainerConfig:
    """A method's config with `SMALL` and ``changes``; two underscores in a name stand for a dot."""
    config = copy.deepcopy(method.config)
    assert isinstance(config, CloseupTrainerConfig)
    config.output_dir = output
    config.data = data
    config.pipeline.datamanager.data = data
    for name, value in {**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}}.items():
        *parents, last = name.split(".")
        owner: Any = config
        for parent in parents:
            owner = getattr(owner, parent)
        assert hasattr(owner, last), f"no option {name}"
        setattr(owner, last, value)
    return config


def tiny_trainer(data: Path, output: Path, seed: int = 0, **changes: Any) -> CloseupTrainer:
    """A trainer that is set up and has trained no step."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    trainer = tiny_config(data, output, **changes).setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def run_in(trainer: CloseupTrainer) -> Run:
    """What the rounds see of a trainer."""
    return trainer.pipeline.as_run(trainer)


def an_injected_view(view: View, round_index: int = 1, seed: int = 0, densifies: bool = False) -> InjectedView:
    """An injected view with made-up pixels, all of them trusted, a quarter of them reliable."""
    generator = torch.Generator().manual_seed(seed)
    size = (view.height, view.width)
    image = torch.rand(*size, 3, generator=generator)
    target = InjectedTarget(
        image=image,
        weight=torch.ones(size),
        sparse=torch.rand(size, generator=generator) < 0.25,
        sparse_color=torch.rand(*size, 3, generator=generator),
        footprint=torch.ones(size),
        sparse_weight=0.5,
        ssim_weight=0.0,
    )
    return InjectedView(f"round{round_index}/view{seed}", round_index, view, target, densifies)
