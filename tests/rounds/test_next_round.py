"""A round that is asked for while a run trains: what becomes of the schedule, the run, and a run that resumes it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from closeup_ns.rounds.next_round import NextRound, adopt_schedule, next_round_step
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.rounds.store.rounds import RoundStore


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    return RoundStore(tmp_path / "rounds")


@pytest.mark.parametrize(
    ("rounds", "step", "expected", "starts"),
    [
        (2, 40, (40, 2), 40),  # in the base phase the first round starts at once
        (0, 40, (40, 1), 40),  # also where the method has none
        (2, 105, (100, 2), 110),  # in round 1 of 2 the second is on its way
        (2, 115, (100, 3), 120),  # in the last round, and after it, one is added
        (2, 120, (100, 3), 120),
    ],
)
def test_a_wish_changes_the_schedule(
    store: RoundStore, rounds: int, step: int, expected: tuple[int, int], starts: int
) -> None:
    schedule, wish, ended = ScheduleConfig(100, rounds, 10), NextRound(), list[int]()
    wish.grant(schedule, store, step, ended.append)
    assert schedule == ScheduleConfig(100, rounds, 10) and store.load_schedule() is None  # nobody asked
    wish.request()
    wish.grant(schedule, store, step, ended.append)
    assert (schedule.base_steps, schedule.rounds) == expected and not wish.wanted
    assert ended == ([40] if step < 100 else []) and wish.granted == (step != 105)
    assert next_round_step(schedule, step) == starts
    assert schedule.round_at(starts - 1) + 1 == schedule.round_at(starts)


def test_who_resumes_goes_by_the_changed_schedule(store: RoundStore) -> None:
    store.save_schedule(ScheduleConfig(40, 2, 10).to_dict())
    for own in (2, 5):
        schedule = ScheduleConfig(100, own, 12)
        adopt_schedule(store, schedule)
        assert schedule == ScheduleConfig(40, own, 10), "more rounds on the command line are not taken back"


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
