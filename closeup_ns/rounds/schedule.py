"""Which step belongs to which phase, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import tyro
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig, Scheduler, SchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from closeup_ns.errors import PlanningError

RESTART = 10.0
"""A round starts at no less than this many times the final learning rate (never above the initial rate)."""


@dataclass
class ScheduleConfig:
    """Base phase, then rounds. All steps are absolute."""

    base_steps: int = 30000
    """Steps of the base phase, on real photographs only."""
    rounds: int = 3
    """Progressive rounds; round t works ``zoom ** t`` times closer than the photographs."""
    round_steps: int = 5000
    """Fine-tuning steps of each round."""
    zoom: float = 3.0
    """How much closer each round goes: round t works at d0 / zoom^t from the target."""

    def __post_init__(self) -> None:
        if not self.zoom > 1.0:
            raise PlanningError(f"zoom must be larger than 1 to come closer in every round; it is {self.zoom}")

    def to_dict(self) -> dict[str, int]:
        """What the viewer's button for the next round may change."""
        return {"base_steps": self.base_steps, "rounds": self.rounds, "round_steps": self.round_steps}

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.base_steps + self.rounds * self.round_steps

    def round_start(self, number: int) -> int:
        """First step of round ``number`` (1-based)."""
        return self.base_steps + (number - 1) * self.round_steps

    def round_at(self, step: int) -> int:
        """The round (1-based) that ``step`` belongs to; 0 in the base phase and after the last round."""
        if self.round_steps <= 0 or not self.base_steps <= step < self.total_steps:
            return 0
        return (step - self.base_steps) // self.round_steps + 1


def _between(start: float, end: float, share: float) -> float:
    """Geometric interpolation; ``share`` outside [0, 1] stays at the ends."""
    share = min(max(share, 0.0), 1.0)
    return math.exp((1 - share) * math.log(start) + share * math.log(end))


@dataclass
class RestartingDecaySchedulerConfig(SchedulerConfig):
    """Exponential decay over the whole run, raised a little at the start of each round.

    Over the whole run and not over the base phase: a run whose rounds are rejected is then a base trained for as long,
    and nothing is lost by having tried (demo, 1500 + 3 x 250 steps: far views 32.59 -> 32.9 dB, 3x 24.34 -> 24.5).
    """

    _target: type = field(default_factory=lambda: RestartingDecayScheduler)
    lr_final: float | None = None
    """Learning rate at the end of the run; None keeps the rate constant."""
    schedule: tyro.conf.Suppress[ScheduleConfig] = field(default_factory=ScheduleConfig)
    """The run's schedule. The trainer sets it from ``pipeline.schedule``."""


class RestartingDecayScheduler(Scheduler):
    """A pure function of the step, so a resumed run has the learning rate that it would have had."""

    config: RestartingDecaySchedulerConfig

    def factor(self, step: int, lr_init: float) -> float:
        """Multiplier of ``lr_init`` at ``step``. A Python float: numpy scalars make checkpoints unreadable."""
        lr_final = self.config.lr_final
        if lr_final is None:
            return 1.0
        schedule = self.config.schedule
        total, number = schedule.total_steps, schedule.round_at(step)
        if not number:
            return _between(lr_init, lr_final, step / max(total, 1)) / lr_init
        first, length = schedule.round_start(number), schedule.round_steps
        start = max(_between(lr_init, lr_final, first / total), min(lr_init, RESTART * lr_final))
        end = _between(lr_init, lr_final, (first + length) / total)
        return _between(start, end, (step - first) / length) / lr_init

    def get_scheduler(self, optimizer: Optimizer, lr_init: float) -> LambdaLR:
        return LambdaLR(optimizer, lr_lambda=lambda step: self.factor(step, lr_init))


def bind_schedule(optimizers: dict[str, Any], schedule: ScheduleConfig) -> None:
    """Tell every restarting scheduler of an optimizer config the run's schedule."""
    for entry in optimizers.values():
        scheduler = entry.get("scheduler")
        if isinstance(scheduler, RestartingDecaySchedulerConfig):
            scheduler.schedule = schedule
        elif isinstance(scheduler, ExponentialDecaySchedulerConfig):
            scheduler.max_steps = schedule.total_steps
