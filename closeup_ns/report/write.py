"""A run's folder in, one HTML page out: closeup-gs report, and the end of each round of ns-train."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from closeup_ns.atomic import atomic_path
from closeup_ns.progress import duration
from closeup_ns.report.config_file import option
from closeup_ns.report.exported import Exported, exported_scenes
from closeup_ns.report.facts import Kernel, Round, Run, View, read_run, read_scores
from closeup_ns.report.images import Embedded, embed, embed_mark
from closeup_ns.report.plan_map import plan_map

LONG_SIDE = 640
"""Pixels of a picture in the page: what fits a column on a dense screen."""
COMPARISONS = 6
"""Views of a round with a slider; the contact sheet shows them all."""
SHEET_WIDTH = 1240
STAGES = {
    "cut": "cutting originals",
    "register": "registering native views",
    "plan": "planning",
    "refine": "rendering and refining",
    "judge": "judging",
    "learn": "native views",
    "fine_tune": "fine-tuning",
}
_UNITS = {"psnr": " dB", "ssim": "", "lpips": ""}


def default_output(config_path: Path) -> Path:
    """Where the page of the run with this config.yml belongs: rounds/report.html beside it."""
    return config_path.parent / "rounds" / "report.html"


def write_report(config_path: Path, output: Path | None = None, scores: Path | None = None) -> Path:
    """Write the page of the run whose config.yml this is, whole or not at all. Nothing of the run is changed.

    Args:
        output: the page; `default_output` by default.
        scores: what ns-eval wrote; ``eval.json`` beside config.yml by default, where there is one.

    Raises:
        CheckpointError: this is no run.
        DataError: ``scores`` is not there or not what ns-eval writes.
        DiskError: the page cannot be written.
    """
    run = read_run(config_path)
    beside = config_path.parent / "eval.json"
    results = read_scores(scores or beside) if scores is not None or beside.is_file() else {}
    destination = output or default_output(config_path)
    exported = list(exported_scenes(run.folder, destination))
    text = page(run, results, datetime.datetime.now().astimezone(), exported)
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf8")
    return destination


def page(run: Run, scores: dict[str, Any], written: datetime.datetime, exported: Sequence[Exported] = ()) -> str:
    """The whole page. ``scores``: ns-eval's keys."""
    environment = Environment(
        loader=PackageLoader("closeup_ns.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "percent": percent, "mean": mean}
    environment.filters["duration"] = lambda seconds: "–" if seconds is None else duration(seconds)
    far = {name: scores[name] for name in _UNITS if isinstance(scores.get(name), (int, float))}
    return environment.get_template("page.html").render(
        run=run, written=written, title=f"closeup-gs: {run.config.get('experiment_name') or run.folder.name}",
        far_scores=[(f"far views, {name}", number(value, 3) + _UNITS[name]) for name, value in far.items()],
        close_scores=_close_scores(scores), made_with=_made_with(run), closer=lambda item: _closer(run, item),
        config=json.dumps(run.config, indent=2, default=str, sort_keys=True), draw=plan_map, chosen=_chosen,
        refiners=_refiners, sheet=lambda path: embed(path, SHEET_WIDTH), stages=STAGES, embedded=_picture,
        covered=_covered, exported=exported,
    )  # fmt: skip


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as text in per cent, a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None where all are."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _close_scores(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Scale -> metric -> value, from keys such as ``close_photo_psnr_3x``."""
    found: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        name, _, scale = key.removeprefix("close_").rpartition("_")
        if key.startswith("close_") and scale.endswith("x") and isinstance(value, (int, float)):
            found.setdefault(scale, {})[name] = value
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _made_with(run: Run) -> list[tuple[str, str]]:
    """Config, versions, device, refiner, kernel: what another person needs to do it again."""
    config, last, schedule = run.config, run.last, run.schedule
    made = last.made_with
    targets = [
        f"({', '.join(number(value, 3) for value in target.point.tolist())}), {target.source}, "
        f"{number(target.distance, 3)} from the cameras that see it, {number(target.reliability)} reliable"
        for target in run.targets
    ]
    return [
        ("method", str(config.get("method_name", ""))),
        ("capture", str(option(config, "pipeline.datamanager.data") or config.get("data") or "")),
        ("target", "; ".join(targets)),
        (
            "schedule",
            f"{schedule.base_steps} steps on photographs alone, then {schedule.rounds} rounds of "
            f"{schedule.round_steps}, each {option(config, 'pipeline.schedule.zoom') or '–'} times closer",
        ),
        ("device", made.device or f"{option(config, 'machine.device_type')} (as configured)"),
        ("refiner", made.refiner or f"{option(config, 'pipeline.refiner.kind')} (as configured)"),
        ("pixel kernel", _kernel(last.kernel)),
        ("pixel kernel of native views", _kernel(last.native_kernel) if last.native_views else ""),
        ("Gaussians", "" if last.gaussians is None else number(last.gaussians, 0)),
        ("seed", f"{option(config, 'pipeline.seed')} (rounds), {option(config, 'machine.seed')} (training)"),
        ("versions", ", ".join(f"{name} {value}" for name, value in made.versions.items()) or "not recorded"),
        ("command", made.command),
    ]


def _kernel(kernel: Kernel | None) -> str:
    if kernel is None:
        return ""
    measured = ", measured on the originals" if len(kernel.taps) > 1 else ""
    return f"variance {number(kernel.variance, 3)} px²{measured}, {kernel.supersample} x supersampled"


def _closer(run: Run, item: Round) -> str:
    planned = item.plans[0].zoom_total if item.plans else None
    zoom = (item.report.zoom if item.report else None) or planned
    step = option(run.config, "pipeline.schedule.zoom")
    if zoom is None and isinstance(step, (int, float)):
        zoom = step**item.number
    return "–" if zoom is None else f"{zoom:g}x"


def _chosen(item: Round) -> list[View]:
    """Views with a slider: frontier views first, which are the closest, then an even spread of the others."""
    ordered = sorted(item.views, key=lambda view: (not view.frontier, not view.used, view.name))
    frontier = [view for view in ordered if view.frontier][: COMPARISONS // 2 + 1]
    others = [view for view in ordered if not view.frontier]
    room = min(COMPARISONS - len(frontier), len(others))
    return frontier + [others[(2 * i + 1) * len(others) // (2 * room)] for i in range(room)]


def _refiners(item: Round) -> str:
    """The refiners of a round's views, and whether they invent."""
    passes = [view.stored.record for view in item.views if view.stored.record]
    named = {one.refiner: "invents" if one.generates else "invents nothing" for one in passes}
    return ", ".join(f"{name} ({invents})" for name, invents in named.items()) or "–"


def _picture(view: View, kind: str) -> Embedded:
    if kind not in view.pictures:
        return Embedded("", 0, 0, f"its picture '{kind}' is missing")
    return embed(view.pictures[kind], LONG_SIDE, LONG_SIDE)


def _covered(view: View) -> Embedded | None:
    """Stripes over the pixels that no photograph gave; None where that is not known."""
    return embed_mark(view.pictures["real"], LONG_SIDE) if "real" in view.pictures else None
