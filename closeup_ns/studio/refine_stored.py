"""Refines a stored round with another refiner into a folder of its own, without retraining."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.errors import CheckpointError, RoundStorageError
from closeup_ns.peak_memory import process_peak_mb
from closeup_ns.refine.refiner import RefinerConfig, build_refiner, check_refiner, chosen_kind
from closeup_ns.report.config_file import option, read_config
from closeup_ns.rounds.next_round import adopt_schedule
from closeup_ns.rounds.refine_step import refine_round
from closeup_ns.rounds.reporting.contact_sheet import SheetRow, save_contact_sheet
from closeup_ns.rounds.reporting.round_report import made_with
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.store.view import in_figures
from closeup_ns.studio.checkpoints import checkpoint_steps
from closeup_ns.studio.loading import LoadedRun, load_run
from closeup_ns.studio.run_folder import hold_folder

ADVICE = "Give --output another folder, or delete that one"


def refine_stored_round(
    config_path: Path,
    number: int,
    config: RefinerConfig,
    output: Path | None = None,
    limit: int | None = None,
    data: Path | None = None,
) -> tuple[RoundStore, dict[str, Any]]:
    """Refine round ``number`` of a run once more. Nothing of the run is changed; what is there already is kept.

    The views come from the checkpoint nearest to the round's start. A run keeps only its latest checkpoint unless told
    otherwise, which has trained on the round already.

    Args:
        config_path: config.yml of a run that has planned the round.
        config: the refiner.
        output: folder for the views; ``refined/round_N-REFINER`` in the run's folder by default.
        limit: refine only so many views.
        data: the photographs, where they were moved since.

    Returns:
        The store of ``output``, laid out like a run's ``rounds``, and what its report.json says.

    Raises:
        CloseupError: there is no such run, round or checkpoint, the plan cannot be read, ``output`` holds another
            refinement, or the refiner cannot work.
    """
    rounds = RoundStore(config_path.parent / "rounds")
    schedule = _schedule(config_path, rounds)
    plan = _plan(config_path, rounds, number)
    step = _checkpoint(config_path, schedule.round_start(number) - 1)
    check_refiner(config, _device())
    run = load_run(config_path, step, data)
    run.pipeline.config.refiner = config
    destination = RoundStore(output or _default_output(config_path, number, config))
    hold_folder(destination.root)
    destination.claim(_identity(rounds, number, step, config), ADVICE)
    destination.save_plan(number, plan)
    seen, native_store = run.pipeline.as_run(), NativeStore(rounds.root)
    for earlier in range(1, number + 1):
        seen.photographs.native += native_store.load(earlier, run.train_names)
    refiner, description = build_refiner(config, seen.device)
    CONSOLE.print(description, soft_wrap=True)
    began = time.perf_counter()
    refine_round(seen, refiner, number, plan.plans, destination, rounds, limit)
    report = _report(run, number, step, destination, time.perf_counter() - began)
    destination.finish_round(number, report)
    return destination, report


def _schedule(config_path: Path, rounds: RoundStore) -> ScheduleConfig:
    """The run's schedule. CheckpointError where this is no run of ours."""
    config = read_config(config_path)
    found = option(config, "pipeline.schedule")
    if found is None:
        method = option(config, "method_name") or "another method"
        raise CheckpointError(f"{config_path} is a run of {method}: only runs of closeup-gs have rounds to refine")
    schedule = ScheduleConfig(**{name: found[name] for name in ("base_steps", "rounds", "round_steps")})
    adopt_schedule(rounds, schedule)
    return schedule


def _plan(config_path: Path, rounds: RoundStore, number: int) -> StoredPlan:
    """The round's plans, one for each target.

    Raises:
        RoundStorageError: the run has not planned this round, or its plan cannot be read.
    """
    plan = rounds.load_plan(number)
    if plan is None:
        planned = [index for index in rounds.rounds() if (rounds.folder(index) / "plan.json").exists()]
        there = f"it has planned round {', '.join(map(str, planned))}" if planned else "it has planned no round yet"
        if number in rounds.rounds():
            raise RoundStorageError(
                f"round {number} of {config_path.parent} has native views alone and planned none to refine: train with "
                "a refiner (--pipeline.refiner.kind reliable, see3d or command)"
            )
        raise RoundStorageError(f"the run {config_path.parent} has no round {number}: {there}")
    if not plan.plans:
        raise RoundStorageError(
            f"the plan of round {number} in {rounds.root} has no target: there is nothing to refine"
        )
    return plan


def _checkpoint(config_path: Path, wanted: int) -> int:
    """Step of the checkpoint nearest to ``wanted``, and a line that says which it is."""
    nearest = min(
        checkpoint_steps(config_path.parent / "nerfstudio_models"), key=lambda step: (abs(step - wanted), -step)
    )
    if nearest == wanted:
        CONSOLE.print(f"checkpoint: step {nearest}, the round's start", highlight=False)
    else:
        CONSOLE.print(
            f"[yellow]checkpoint: step {nearest}; the round began after step {wanted}, of which there is none: the "
            "views differ from the round's own. Train with --save-only-latest-checkpoint False to keep it",
            highlight=False,
            soft_wrap=True,
        )
    return nearest


def _default_output(config_path: Path, number: int, config: RefinerConfig) -> Path:
    parts = [chosen_kind(config, _device()), *([config.enhance.kind] if config.enhance.kind != "none" else [])]
    return config_path.parent / "refined" / "-".join([f"round_{number}", *parts])


def _device() -> str:
    """What nerfstudio loads a run on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _identity(rounds: RoundStore, number: int, step: int, config: RefinerConfig) -> dict[str, Any]:
    """What must be the same for a folder to be gone on with."""
    kind, enhancement = chosen_kind(config, _device()), config.enhance.kind
    options = asdict(config)
    return {
        "plan_sha256": hashlib.sha256((rounds.folder(number) / "plan.json").read_bytes()).hexdigest(),
        "round": number,
        "checkpoint": step,
        "refiner": kind,
        "options": options.get(kind, {}),
        "enhance": options["enhance"],
        "enhance_options": options["see3d"] if enhancement == "see3d-sr" else {},
    }


def _report(run: LoadedRun, number: int, step: int, destination: RoundStore, seconds: float) -> dict[str, Any]:
    """The contact sheet is drawn, the report is given back."""
    rows = [SheetRow(name, destination.load_view(number, name)) for name in destination.views(number)]
    made = made_with(run.pipeline.as_run())
    title = f"round {number} refined again with {made['refiner']}, checkpoint at step {step}"
    save_contact_sheet(destination.contact_sheet(number), rows, title)
    return {
        "round": number,
        "run": str(run.folder.resolve()),
        "checkpoint": step,
        "views": {row.name: in_figures(row.stored) for row in rows},
        "seconds": {"refine": round(seconds, 2)},
        "peak_memory_mb": process_peak_mb(),
        "made_with": made,
    }
