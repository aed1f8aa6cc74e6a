"""Phases and learning rates: pure functions of the step, so a resumed run goes on as it would have."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig

from closeup_ns.rounds.schedule import RestartingDecaySchedulerConfig, ScheduleConfig, bind_schedule

INITIAL, FINAL = 1.6e-4, 1.6e-6
SCHEDULE = ScheduleConfig(base_steps=1000, rounds=3, round_steps=200)
schedules = st.builds(ScheduleConfig, st.integers(0, 50), st.integers(0, 5), st.integers(0, 20))


def rate(step: int, schedule: ScheduleConfig = SCHEDULE) -> float:
    config = RestartingDecaySchedulerConfig(lr_final=FINAL)
    config.schedule = schedule
    return INITIAL * config.setup().factor(step, INITIAL)


@given(schedules, st.integers(0, 200))
def test_a_step_belongs_to_the_round_whose_span_holds_it(schedule: ScheduleConfig, step: int) -> None:
    spans = {
        number: range(schedule.round_start(number), schedule.round_start(number) + schedule.round_steps)
        for number in range(1, schedule.rounds + 1)
    }
    holders = [number for number, span in spans.items() if step in span]
    assert schedule.round_at(step) == (holders[0] if holders else 0)
    assert sum(len(span) for span in spans.values()) + schedule.base_steps == schedule.total_steps


def decayed(step: int, total: int = 1600) -> float:
    return INITIAL ** (1 - step / total) * FINAL ** (step / total)


def test_one_decay_over_the_whole_run_to_which_each_round_comes_back_from_higher() -> None:
    for step in (0, 1, 250, 999):
        assert rate(step) == pytest.approx(decayed(step), rel=1e-9)
    for number, passed in itertools.product((1, 2, 3), (0, 100, 199)):
        first, share = SCHEDULE.round_start(number), passed / 200
        start = max(10 * FINAL, decayed(first))
        assert rate(first + passed) == pytest.approx(start ** (1 - share) * decayed(first + 200) ** share)


@given(schedules, st.integers(0, 200))
def test_without_a_restart_rounds_change_nothing(schedule: ScheduleConfig, step: int) -> None:
    total = schedule.total_steps
    if 0 < step <= total:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("closeup_ns.rounds.schedule.RESTART", 0.0)
            found = rate(step, schedule)
        assert found == pytest.approx(decayed(step, total), rel=1e-9)


def test_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rate(0) == pytest.approx(INITIAL)
    assert rate(1600) == rate(10_000) == pytest.approx(FINAL)
    assert rate(1000, ScheduleConfig(1000, 0, 0)) == pytest.approx(FINAL)
    monkeypatch.setattr("closeup_ns.rounds.schedule.RESTART", 1e9)
    assert rate(1000) == pytest.approx(INITIAL)  # never above the first rate
    assert RestartingDecaySchedulerConfig().setup().factor(77, INITIAL) == 1.0


@given(schedules)
def test_a_scheduler_that_is_stepped_has_the_closed_forms_rate(schedule: ScheduleConfig) -> None:
    """In Python floats: numpy scalars in its state make nerfstudio's own checkpoints unreadable for torch >= 2.6."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=INITIAL)
    config = RestartingDecaySchedulerConfig(lr_final=FINAL)
    config.schedule = schedule
    scheduler = config.setup().get_scheduler(optimizer, INITIAL)
    for step in range(schedule.total_steps + 3):
        found = optimizer.param_groups[0]["lr"]
        assert type(found) is float and found == pytest.approx(rate(step, schedule), rel=1e-9)
        assert FINAL * (1 - 1e-9) <= found <= INITIAL * (1 + 1e-9)
        optimizer.step()
        scheduler.step()


def test_the_run_schedule_reaches_every_scheduler() -> None:
    restarting, exponential = RestartingDecaySchedulerConfig(), ExponentialDecaySchedulerConfig(max_steps=7)
    bind_schedule({"a": {"scheduler": restarting}, "b": {"scheduler": exponential}, "c": {"scheduler": None}}, SCHEDULE)
    assert restarting.schedule is SCHEDULE
    assert exponential.max_steps == 1600
