"""The button that requests the next round: its text and what it sets. The training loop plans and trains it."""

from __future__ import annotations

from nerfstudio.engine.trainer import Trainer

from closeup_ns.planning.target import Target
from closeup_ns.rounds.loop import Rounds
from closeup_ns.rounds.next_round import next_round_step
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.rounds import RoundStore


def why_no_rounds(schedule: ScheduleConfig, trainer: Trainer | None) -> str | None:
    """Why the next round cannot be asked for; None where it can."""
    if trainer is None:
        return "Only while training: go on with `ns-train ... --load-dir RUN/nerfstudio_models` and more rounds."
    if schedule.round_steps <= 0:
        return "This method trains without rounds (`--pipeline.schedule.round-steps` is 0)."
    return None


def request_round(
    run: Run, rounds: Rounds | None, trainer: Trainer | None, store: RoundStore, target: Target | None
) -> str:
    """Request the next round, at ``target`` where a person chose one. Returns the text for the panel."""
    reason = why_no_rounds(run.settings.schedule, trainer)
    if reason is not None or rounds is None or trainer is None:
        return reason or "Training has not begun yet: try again in a moment."
    step = rounds.next_step
    number = rounds.schedule.round_at(step)
    start = f"when round {number} is over" if number else "before the next step"
    lines = [f"Asked for at step {step}: it starts {start}."]  # it stays on the panel, so it is true later as well
    if target is not None and store.load_targets() is None and not rounds.targets:
        x, y, z = (float(value) for value in target.point)
        run.settings.target.xyz, run.settings.target.pixel = ((x, y, z),), ()
    elif target is not None:
        lines.append("⚠ The rounds go on with the target they were begun with; another one needs a new run.")
    rounds.next_round.request()
    return "  \n".join(lines)


def why_waiting(rounds: Rounds, trainer: Trainer | None) -> str | None:
    """Why a round that was asked for does not start; None where it does, or where nobody asked."""
    if rounds.next_round.wanted and trainer is not None and trainer.training_state == "paused":
        return "⚠ Training is paused: resume it."
    return None


def progress(rounds: Rounds) -> str:
    """How far the run is, as Markdown: the phase or round, its step of how many, or the stage under way."""
    schedule, step = rounds.schedule, rounds.next_step
    if rounds.stage:  # read after the step: the training thread sets it before the last step of a round counts
        return f"**{rounds.stage}** ..."
    requested = "Asked for the next round.  \n" if rounds.next_round.wanted else ""
    number = schedule.round_at(step)
    if number:
        done = step - schedule.round_start(number)
        return f"{requested}Round {number} of {schedule.rounds}: step {done} of {schedule.round_steps}"
    if step >= schedule.base_steps:
        return f"{requested}All {schedule.rounds} rounds are over."
    following = f", round 1 starts at step {next_round_step(schedule, step)}" if schedule.rounds else ""
    return f"{requested}Base phase: step {step} of {schedule.base_steps}{following}"
