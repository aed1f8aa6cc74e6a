"""What a round did, as files: report.json, the views after fine-tuning, the contact sheet, one line for the user."""

from __future__ import annotations

import resource
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.planning.plan import RoundPlan
from closeup_ns.training.acceptance import RoundVerdict
from closeup_ns.training.contact_sheet import SheetRow, save_contact_sheet
from closeup_ns.training.store import RoundStore

if TYPE_CHECKING:
    from closeup_ns.training.pipeline import CloseupPipeline


def write_round_report(
    pipeline: CloseupPipeline,
    store: RoundStore,
    number: int,
    plans: list[RoundPlan],
    verdict: RoundVerdict,
    seconds: dict[str, float],
    psnr_before: float | None,
    psnr_after: float | None,
) -> None:
    """Write what round ``number`` did; the report, written last, marks the round as over."""
    rows = []
    for name in store.views(number):
        stored = store.load_view(number, name)
        after = pipeline.model.render_view(stored.view.to(pipeline.device)).color
        store.save_after(number, name, after)
        rows.append(SheetRow(name, stored, after))
    zoom = pipeline.config.planner.zoom**number
    kept = "kept" if verdict.accepted else "NOT kept"
    save_contact_sheet(store.contact_sheet(number), rows, f"round {number}, {zoom:g}x closer, {kept}: {verdict.reason}")
    report: dict[str, Any] = {
        "round": number,
        "zoom": zoom,
        "radii": [plan.radius for plan in plans],
        "verdict": verdict.to_dict(),
        "views": {row.name: row.stored.decision.to_dict() for row in rows},
        "warnings": [warning for plan in plans for warning in plan.warnings],
        "gaussians": pipeline.model.num_points,
        "kernel": asdict(pipeline.model.kernel),
        "evaluation_psnr": {
            "before": psnr_before,
            "after": psnr_after,
            "note": "evaluation split; reported only, never used to decide",
        },
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    store.finish_round(number, report)
    if psnr_before is not None and psnr_after is not None:
        CONSOLE.print(f"Round {number}: evaluation photographs {psnr_before:.2f} -> {psnr_after:.2f} dB (report only)")
    writer.put_scalar(name=f"Rounds/{number} accepted", scalar=float(verdict.accepted), step=pipeline.model.step)
    CONSOLE.print(f"Round {number}: see {store.contact_sheet(number)}")
