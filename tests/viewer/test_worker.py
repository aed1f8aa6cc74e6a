"""The worker: order, replacement, and that nothing kills it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from closeup_ns.viewer.worker import Worker

PATIENCE = 240.0
"""Seconds; a loaded machine may need many for what is at once."""


@pytest.fixture
def failures() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def worker(failures: list[tuple[str, str]]) -> Iterator[Worker]:
    made = Worker(lambda name, error: failures.append((name, str(error))), lambda: None, idle_seconds=0.01)
    made.start()
    yield made
    made.stop()


def wait_for(worker: Worker) -> None:
    """Until everything is done that was submitted so far."""
    done = threading.Event()
    worker.submit("last", done.set)
    assert done.wait(PATIENCE)


def test_only_the_latest_wish_of_a_kind_is_done(worker: Worker) -> None:
    done: list[str] = []
    gate, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(PATIENCE)

    worker.submit("block", block)
    assert begun.wait(PATIENCE)
    for number in range(5):
        worker.submit("overlay", lambda number=number: done.append(f"overlay {number}"))
    worker.submit("target", lambda: done.append("target"))
    gate.set()
    wait_for(worker)
    assert done == ["overlay 4", "target"]


def test_a_job_that_raises_is_reported_and_the_next_one_runs(worker: Worker, failures: list[tuple[str, str]]) -> None:
    done: list[int] = []
    worker.submit("bad", lambda: [][1])
    worker.submit("good", lambda: done.append(1))
    wait_for(worker)
    assert [name for name, _ in failures] == ["bad"] and done == [1]


def test_it_looks_around_although_jobs_never_end() -> None:
    """Each frame of a viewer submits a job: what is new must be drawn all the same."""
    looks, enough = [0], threading.Event()

    def look() -> None:
        looks[0] += 1
        if looks[0] == 3:
            enough.set()

    def again() -> None:
        worker.submit("frame", again)

    worker = Worker(lambda name, error: None, look, idle_seconds=0.01)
    worker.submit("frame", again)
    worker.start()
    assert enough.wait(PATIENCE)
    worker.stop()
