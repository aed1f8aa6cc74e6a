"""What a round did: report.json, the views after fine-tuning, the contact sheet, the run's page, tensorboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image

from closeup_ns.peak_memory import gpu_peak_mb, process_peak_mb
from closeup_ns.planning.plan import RoundPlan
from closeup_ns.planning.target import Target
from closeup_ns.provenance import provenance
from closeup_ns.refine.refiner import build_refiner
from closeup_ns.rendering.backend import describe_backend
from closeup_ns.rounds.reporting.contact_sheet import SheetRow, save_contact_sheet
from closeup_ns.rounds.reporting.held_out import Look, look, plan_held_out, save_sheet
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.store.view import in_figures
from closeup_ns.rounds.trials.acceptance import RoundVerdict
from closeup_ns.rounds.trials.trial import eval_psnr
from closeup_ns.views.view import View


@dataclass
class RoundResult:
    """What is known about a round; filled in from stage to stage."""

    number: int
    zoom: float
    plans: list[RoundPlan] = field(default_factory=list)
    """One for each target where a refiner works; empty for a round of native views alone."""
    verdict: RoundVerdict = field(default_factory=lambda: RoundVerdict(False, "not judged yet"))
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    psnr_before: float | None = None
    """PSNR in dB of the evaluation split, before the round and after it. A round that is resumed in its middle has no
    figure before it."""
    psnr_after: float | None = None
    before: Look = field(default_factory=Look)
    """How the model showed native crops of held-out photographs before the round."""

    def look_before(self, run: Run, target: Target) -> None:
        """Keep how the model shows held-out photographs before the round."""
        self.psnr_before = eval_psnr(run)
        self.before = look(run, self.number, _held_out(run, self.number, target))


def _held_out(run: Run, number: int, target: Target) -> list[tuple[int, View]]:
    return plan_held_out(run, number, target.point) if run.settings.originals.enabled else []


def write_round_report(run: Run, store: RoundStore, result: RoundResult, target: Target) -> None:
    """Write what a round did; the report, written last, marks the round as over."""
    rows, number, verdict = [], result.number, result.verdict
    for name in store.views(number):
        stored = store.load_view(number, name)
        after = run.model.render_view(stored.view.to(run.device)).color
        store.save_after(number, name, after)
        rows.append(SheetRow(name, stored, after))
    if rows:
        kept = "kept" if verdict.accepted else "NOT kept"
        title = f"round {number}, {result.zoom:g}x closer, {kept}: {verdict.reason}"
        save_contact_sheet(store.contact_sheet(number), rows, title)
    after = look(run, number, result.before.crops or _held_out(run, number, target), registered=True)
    if result.before.pictures:
        title = f"round {number}, {result.zoom:g}x closer: crops of held-out photographs"
        save_sheet(store.close_photographs(number), title, result.before, after)
    report: dict[str, Any] = {
        "round": number,
        "zoom": result.zoom,
        "radii": [plan.radius for plan in result.plans],
        "verdict": asdict(verdict),
        "views": {row.name: in_figures(row.stored) for row in rows},
        "native_views": len(run.native_views(number)),
        "warnings": [warning for plan in result.plans for warning in plan.warnings],
        "gaussians": run.model.num_points,
        "kernel": asdict(run.model.kernel),
        "native_kernel": asdict(run.model.kernel_of(number)),
        "evaluation_psnr": {
            "before": result.psnr_before,
            "after": result.psnr_after,
            "note": "evaluation split; reported only, never used to decide",
        },
        "close_photograph_psnr": {
            "before": result.before.psnr,
            "after": after.psnr,
            "after, registered": after.registered,
            "note": "native crops of the evaluation split at this round's scale; reported only",
        },
        "seconds": {stage: round(value, 2) for stage, value in result.seconds.items()},
        "peak_memory_mb": process_peak_mb(),
        "made_with": made_with(run),
    }
    if run.device.type == "cuda":
        report["peak_gpu_memory_mb"] = gpu_peak_mb(run.device)
    store.finish_round(number, report)
    show_round(run, store, report, rows)


def made_with(run: Run) -> dict[str, Any]:
    """Versions, device and refiner: what another person needs to get the same figures."""
    refiner, description = build_refiner(run.settings.refiner, run.device)
    about = provenance()
    ours = f"{about['closeup_ns']} ({about['commit']})" if about["commit"] else about["closeup_ns"]
    others = {name: version(name) for name in ("nerfstudio", "gsplat", "torch")}
    return {
        "device": describe_backend(run.device),
        "refiner": description.removeprefix("refiner: "),
        "generates": refiner.generates,
        "versions": {"closeup-ns": ours, **others},
        "command": about["command"],
    }


def show_round(run: Run, store: RoundStore, report: dict[str, Any], rows: Sequence[SheetRow]) -> None:
    """The console's lines, tensorboard's scalars and images, and the page about the run so far."""
    number, step, far = report["round"], run.model.step, report["evaluation_psnr"]
    used = [row.stored.real.float().mean() for row in rows if row.stored.decision.verdict != "rejected"]
    scalars: dict[str, float | None] = {
        "accepted": float(report["verdict"]["accepted"]),
        "evaluation PSNR before": far["before"],
        "evaluation PSNR after": far["after"],
        "held-out PSNR, control": report["verdict"]["photographs_control"],
        "held-out PSNR, round": report["verdict"]["photographs_round"],
        "native PSNR, control": report["verdict"]["native_control"],
        "native PSNR, round": report["verdict"]["native_round"],
        "share of real pixels": float(torch.stack(used).mean()) if used else None,
        "share of generated pixels": 1 - float(torch.stack(used).mean()) if used else None,
        "share of views used": len(used) / len(rows) if rows else None,
    }
    for name, value in scalars.items():
        if value is not None:
            writer.put_scalar(name=f"Rounds/{name}", scalar=value, step=step)
    if rows:
        with Image.open(store.contact_sheet(number)) as sheet:
            pixels = torch.from_numpy(np.asarray(sheet.convert("RGB")).astype(np.float32) / 255)
        writer.put_image(name=f"Rounds/{number} contact sheet", image=pixels, step=step)
        CONSOLE.print(f"Round {number}: see {store.contact_sheet(number)}")
    if far["before"] is not None and far["after"] is not None:
        before, after = far["before"], far["after"]
        CONSOLE.print(f"Round {number}: evaluation photographs {before:.2f} -> {after:.2f} dB (report only)")
    close = report["close_photograph_psnr"]
    if None not in close.values():
        gain = f"{close['before']:.2f} -> {close['after']:.2f} dB ({close['after, registered']:.2f} registered)"
        CONSOLE.print(
            f"Round {number}: held-out photographs at {report['zoom']:g}x {gain} (report only): see "
            f"{store.close_photographs(number)}",
            soft_wrap=True,
        )
