"""What the button for the next round says and sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from closeup_ns.planning.target import Target
from closeup_ns.planning.targets import TargetConfig
from closeup_ns.rounds.next_round import NextRound
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.next_round import progress, request_round, why_no_rounds, why_waiting

TARGET = Target(torch.tensor([0.5, -1.0, 4.0]), 4.0, 0.9, "a click")
TRAINING = cast(Any, SimpleNamespace(training_state="training"))


def a_run(each: int = 10, step: int = 0) -> Any:
    schedule = ScheduleConfig(100, 2, each)
    rounds = SimpleNamespace(next_round=NextRound(), targets=[], stage="", schedule=schedule, next_step=step)
    config = SimpleNamespace(schedule=schedule, target=TargetConfig(pixel=("a.png:1:2",)))
    return SimpleNamespace(settings=config, rounds=rounds)


@pytest.mark.parametrize("each, trainer, reason", [(10, None, "--load-dir"), (0, TRAINING, "without rounds")])
def test_where_there_are_no_rounds_it_says_why_and_no_round_is_requested(
    tmp_path: Path, each: int, trainer: Any, reason: str
) -> None:
    run = a_run(each)
    assert reason in str(why_no_rounds(run.settings.schedule, trainer))
    assert reason in request_round(run, run.rounds, trainer, RoundStore(tmp_path), TARGET)
    assert not run.rounds.next_round.wanted and why_no_rounds(a_run().settings.schedule, TRAINING) is None


def test_a_request_takes_the_target_that_was_clicked(tmp_path: Path) -> None:
    run = a_run()
    text = request_round(run, run.rounds, TRAINING, RoundStore(tmp_path), TARGET)
    assert run.rounds.next_round.wanted and text == "Asked for at step 0: it starts before the next step."
    assert run.settings.target.xyz == ((0.5, -1.0, 4.0),) and run.settings.target.pixel == ()


def test_rounds_that_have_begun_keep_their_target_and_say_so(tmp_path: Path) -> None:
    run, store = a_run(), RoundStore(tmp_path)
    store.save_targets([TARGET.to_dict()])
    text = request_round(run, run.rounds, TRAINING, store, TARGET)
    assert "another one needs a new run" in text and run.settings.target.xyz == ()
    assert run.rounds.next_round.wanted


def test_a_pause_is_said_for_as_long_as_a_round_waits_for_its_end() -> None:
    rounds, trainer = a_run().rounds, cast(Any, SimpleNamespace(training_state="paused"))
    assert why_waiting(rounds, trainer) is None
    rounds.next_round.request()
    assert "paused: resume it" in str(why_waiting(rounds, trainer))
    trainer.training_state = "training"
    assert why_waiting(rounds, trainer) is None and why_waiting(rounds, None) is None


@pytest.mark.parametrize(
    "step, said, start",
    [
        (40, "Base phase: step 40 of 100, round 1 starts at step 100", "before the next step"),
        (103, "Round 1 of 2: step 3 of 10", "when round 1 is over"),
        (117, "Round 2 of 2: step 7 of 10", "when round 2 is over"),
        (120, "All 2 rounds are over.", "before the next step"),
    ],
)
def test_how_far_a_run_is_and_when_a_round_starts_that_is_asked_for(
    tmp_path: Path, step: int, said: str, start: str
) -> None:
    """That it does start then: rounds/test_next_round.py."""
    run = a_run(step=step)
    assert progress(run.rounds) == said
    text = request_round(run, run.rounds, TRAINING, RoundStore(tmp_path), None)
    assert text == f"Asked for at step {step}: it starts {start}."
    assert progress(run.rounds).startswith("Asked for")
    run.rounds.stage = "round 1: refining"
    assert "refining" in progress(run.rounds)
