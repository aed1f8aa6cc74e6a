"""A round that a person asks for while the run trains. Asked from any thread, granted between two steps."""

from __future__ import annotations

import threading
from collections.abc import Callable

from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.rounds import RoundStore


class NextRound:
    """The request for a round, and what becomes of the schedule when it is granted."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self.granted = False
        """Whether the schedule is no longer the one that this process started with."""

    @property
    def wanted(self) -> bool:
        """Whether a round is requested and not granted yet."""
        return self._wanted.is_set()

    def request(self) -> None:
        """Request the next round; from any thread."""
        self._wanted.set()

    def grant(
        self, schedule: ScheduleConfig, store: RoundStore, step: int, end_base_phase: Callable[[int], None]
    ) -> None:
        """Change the schedule so that the requested round is on it; ``step`` is the next to be trained.

        In the base phase the first round starts at ``step``. Later, the round after the present one is on the schedule
        already, or is added at its end.
        """
        if not self.wanted or step < 1:
            return
        self._wanted.clear()
        if step < schedule.base_steps:
            end_base_phase(step)
            schedule.base_steps = step
            schedule.rounds = max(schedule.rounds, 1)
        elif schedule.round_at(step) in (0, schedule.rounds):
            schedule.rounds += 1
        else:
            CONSOLE.print(f"The next round is on the schedule already: step {next_round_step(schedule, step)}")
            return
        self.granted = True
        store.save_schedule(schedule.to_dict())
        CONSOLE.print(f"A round was asked for: it starts at step {next_round_step(schedule, step)}")


def next_round_step(schedule: ScheduleConfig, step: int) -> int:
    """The first step of the round that starts at ``step`` or after it."""
    starts = (schedule.round_start(number) for number in range(1, schedule.rounds + 1))
    return next((start for start in starts if start >= step), schedule.total_steps)


def adopt_schedule(store: RoundStore, schedule: ScheduleConfig) -> None:
    """A run that is resumed, or shown, goes by the schedule that it had since rounds were asked for."""
    saved = store.load_schedule()
    if saved is not None:
        schedule.base_steps, schedule.round_steps = saved.base_steps, saved.round_steps
        schedule.rounds = max(schedule.rounds, saved.rounds)
