"""A round that is asked for while a run trains: what becomes of the schedule, the run, and a run that resumes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from closeup_ns.rounds.next_round import NextRound, adopt_schedule, next_round_step
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.next_round import progress
from tests.trainers import MakeTrainer


class StandIn:
    """The part of `Rounds` that a wish changes."""

    def __init__(self, folder: Path, base: int = 100, rounds: int = 2, each: int = 10) -> None:
        self.schedule = ScheduleConfig(base, rounds, each)
        self.store = RoundStore(folder / "rounds")
        self.ended_at: list[int] = []

    def end_base_phase(self, step: int) -> None:
        self.ended_at.append(step)


def granted(rounds: StandIn, step: int) -> NextRound:
    wish = NextRound()
    wish.ask()
    wish.grant(rounds.schedule, rounds.store, step, rounds.end_base_phase)
    return wish


def test_in_the_base_phase_the_first_round_starts_at_the_next_step(tmp_path: Path) -> None:
    rounds = StandIn(tmp_path)
    wish = granted(rounds, 40)
    assert wish.granted and not wish.wanted and rounds.ended_at == [40]
    assert rounds.schedule.round_at(39) == 0 and rounds.schedule.round_at(40) == 1
    assert rounds.schedule.total_steps == 60


def test_a_method_of_no_rounds_gets_one(tmp_path: Path) -> None:
    rounds = StandIn(tmp_path, rounds=0)
    granted(rounds, 40)
    assert rounds.schedule.round_at(40) == 1


@pytest.mark.parametrize("step, expected", [(105, 2), (115, 3), (120, 3)])
def test_later_it_is_the_one_after_the_present(tmp_path: Path, step: int, expected: int) -> None:
    """In round 1 of 2 the second is on its way; in the last round, and after it, one is added."""
    rounds = StandIn(tmp_path)
    wish = granted(rounds, step)
    assert rounds.schedule.rounds == expected and rounds.ended_at == [] and not wish.wanted
    assert next_round_step(rounds.schedule, step) == {105: 110, 115: 120, 120: 120}[step]


def test_without_a_wish_nothing_changes(tmp_path: Path) -> None:
    rounds = StandIn(tmp_path)
    NextRound().grant(rounds.schedule, rounds.store, 40, rounds.end_base_phase)
    assert rounds.schedule == ScheduleConfig(100, 2, 10) and rounds.store.load_schedule() is None


def test_who_resumes_goes_by_the_changed_schedule(tmp_path: Path) -> None:
    rounds = StandIn(tmp_path)
    granted(rounds, 40)
    fresh = ScheduleConfig(100, 2, 10)
    adopt_schedule(rounds.store, fresh)
    assert fresh == rounds.schedule
    more = ScheduleConfig(100, 5, 10)
    adopt_schedule(rounds.store, more)
    assert more.base_steps == 40 and more.rounds == 5, "more rounds on the command line are not taken back"


def test_a_run_starts_its_round_early_and_ends_when_it_is_over(make_trainer: MakeTrainer) -> None:
    """A real trainer: asked for at step 20 of 60, one round of 6 steps; and one more when all is over."""
    trainer = make_trainer(
        pipeline__schedule__rounds=1, pipeline__schedule__round_steps=6, viewer__quit_on_train_completion=True
    )
    began: list[tuple[int, int]] = []

    rounds = trainer.pipeline.rounds
    assert rounds is not None
    said: list[str] = []

    def noted(number: int, step: int) -> Iterator[None]:
        began.append((number, step))
        if number == 1:
            rounds.next_round.ask()
        yield
        said.append(progress(rounds))

    rounds._round = noted
    after = rounds.after_step

    def after_step(step: int) -> None:
        after(step)
        if step == 19:
            rounds.next_round.ask()

    for callback in trainer.callbacks:
        if callback.func == rounds.after_step:
            callback.func = after_step
    trainer.train()
    assert began == [(1, 20), (2, 26)]
    assert rounds.next_step == 32 == trainer.schedule.total_steps
    # A round is over when its report is there, and not a moment before: who waits for these words reads the report.
    assert said == ["**round 1: writing its report** ...", "**round 2: writing its report** ..."]
    assert progress(rounds) == "All 2 rounds are over."
    assert (trainer.checkpoint_dir / "step-000000031.ckpt").exists()
    assert rounds.store.load_schedule() == {"base_steps": 20, "rounds": 2, "round_steps": 6}


def watched(lock: Any, viewer: object) -> Run:
    """A run whose trainer has this lock and this viewer."""
    trainer = SimpleNamespace(train_lock=lock, viewer_state=viewer)
    return Run(cast(Any, None), cast(Any, None), RoundSettings(), cast(Any, trainer))


VIEWER = SimpleNamespace(render_statemachines={0: object()})


def test_a_viewer_that_waits_gets_its_frame() -> None:
    lock, rendered = threading.Lock(), threading.Event()

    def render() -> None:
        with lock:
            rendered.set()

    lock.acquire()
    threading.Thread(target=render, daemon=True).start()
    deadline = time.monotonic() + 240
    while not rendered.is_set() and time.monotonic() < deadline:
        watched(lock, VIEWER).give_way()
    assert rendered.is_set() and lock.locked()


class Interrupted:
    """A lock at which Ctrl+C ends the first wait; it is the viewer that has it then, for one frame."""

    def __init__(self) -> None:
        self.held, self.asked = True, 0

    def locked(self) -> bool:
        return self.held

    def release(self) -> None:
        assert self.held
        self.held = False

    def acquire(self, timeout: float = -1) -> bool:
        self.asked += 1
        if self.asked == 1:
            raise KeyboardInterrupt
        self.held = True
        return True


@pytest.mark.parametrize("while_it_waits", [True, False])
def test_ctrl_c_leaves_the_lock_held(monkeypatch: pytest.MonkeyPatch, while_it_waits: bool) -> None:
    """The training loop releases it on its way out: another's lock, or nobody's, would be another error."""
    lock: Any = Interrupted() if while_it_waits else threading.Lock()
    if not while_it_waits:
        lock.acquire()
        monkeypatch.setattr("closeup_ns.rounds.run.time.sleep", Interrupted().acquire)
    with pytest.raises(KeyboardInterrupt):
        watched(lock, VIEWER).give_way()
    assert lock.locked()


@pytest.mark.parametrize("viewer", [None, SimpleNamespace(render_statemachines={})])
def test_where_nobody_watches_the_lock_stays(viewer: object) -> None:
    lock = threading.Lock()
    lock.acquire()
    watched(lock, viewer).give_way()
    assert lock.locked()
