"""The sections of the page, each from the facts of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from closeup_ns.report.config_file import option
from closeup_ns.report.facts import RoundFacts, RunFacts, ViewFacts
from closeup_ns.report.images import embed_sheet
from closeup_ns.report.markup import Content, Markup, table, tag
from closeup_ns.report.parts import change, comparison, duration, facts_list, mean, note, notes, number, percent
from closeup_ns.report.plan_map import plan_map

COMPARISONS = 6
"""Views of a round with a slider; the contact sheet shows them all."""
SHEET_WIDTH = 1240
STAGES = {
    "cut": "cutting originals",
    "register": "registering photographs",
    "plan": "planning",
    "refine": "rendering and refining",
    "judge": "judging",
    "fine_tune": "fine-tuning",
}
UNITS = {"psnr": " dB", "ssim": "", "lpips": ""}


def quality(run: RunFacts) -> Markup:
    """Held-out photographs and close-ups, before and after each round; a round is a scale."""
    rows = []
    for item in run.rounds:
        far, verdict = item.report.get("evaluation_psnr") or {}, item.verdict
        decisions = [view.decision for view in item.views if view.used]
        rows.append(
            [
                f"{item.number} ({_closer(run, item)})",
                _kept(item),
                change(far.get("before"), far.get("after")) if far else "–",
                change(verdict.get("photographs_control"), verdict.get("photographs_round")) if verdict else "–",
                _three(
                    mean([d.get("psnr_before") for d in decisions]),
                    mean([d.get("psnr_after") for d in decisions]),
                    mean([view.psnr_after for view in item.views if view.used]),
                ),
            ]
        )
    head = [
        "Round (scale)",
        "Kept",
        "Far views: test photographs before → after the round",
        "The trial: held-out photographs, photographs alone → with the round",
        "Close-ups, on reliable pixels: render → refined → after the round",
    ]
    return tag(
        "section",
        tag("h2", "Quality"),
        table(head, rows, "PSNR in dB, by round and scale"),
        tag(
            "p",
            "Test photographs decide nothing and are never trained on. The trial's photographs were held out while it "
            "ran; a round that is not kept goes on with photographs alone. Reliable pixels are those whose colour real "
            "photographs agree on; a round that was kept has trained on them, so that column says how well they were "
            "learnt, not how well unseen ones look.",
            class_="dim",
        ),
    )


def scores(results: Mapping[str, Any]) -> Markup | None:
    """What ns-eval measured at poses that no round trained on; None where it has no such figures."""
    found: dict[str, dict[str, float]] = {}
    for key, value in results.items():
        name, _, scale = key.removeprefix("close_").rpartition("_")
        if key.startswith("close_") and scale.endswith("x") and isinstance(value, (int, float)):
            found.setdefault(scale, {})[name] = value
    far = {name: results[name] for name in ("psnr", "ssim", "lpips") if isinstance(results.get(name), (int, float))}
    if not found and not far:
        return None
    names = sorted({name for values in found.values() for name in values})
    scales = sorted(found, key=lambda scale: (len(scale), scale))
    rows = [[scale, *(number(found[scale].get(name), 3) for name in names)] for scale in scales]
    return tag(
        "section",
        tag("h2", "Scores of ns-eval"),
        facts_list([(f"far views, {name}", number(value, 3, UNITS[name])) for name, value in far.items()]),
        table(["closer", *(name.replace("_", " ") for name in names)], rows, "Close-ups, by scale") if rows else None,
    )


def made_with(run: RunFacts) -> Markup:
    """Config, versions, device, refiner, kernel: what another person needs to do it again."""
    config, last = run.config, next((item.report for item in reversed(run.rounds) if item.report), {})
    made = last.get("made_with") or {}
    kernel = last.get("kernel") or {}
    versions = ", ".join(f"{name} {value}" for name, value in (made.get("versions") or {}).items())
    step = number(option(config, "pipeline.planner.zoom"), 0)
    targets = [
        f"({', '.join(number(value, 3) for value in item.get('point', []))}), {item.get('source', '')}, "
        f"{number(item.get('distance'), 3)} from the cameras that see it, {number(item.get('reliability'), 2)} reliable"
        for item in run.targets
    ]
    pairs: list[tuple[str, Content]] = [
        ("method", str(config.get("method_name", ""))),
        ("capture", str(option(config, "pipeline.datamanager.data") or config.get("data") or "")),
        ("target", [tag("div", item) for item in targets]),
        (
            "schedule",
            f"{run.schedule.get('base_steps', '–')} steps on photographs alone, then {run.wanted_rounds} rounds of "
            f"{run.schedule.get('round_steps', '–')}, each {step} times closer",
        ),
        ("device", made.get("device") or f"{option(config, 'machine.device_type')} (as configured)"),
        ("refiner", made.get("refiner") or f"{option(config, 'pipeline.refiner.kind')} (as configured)"),
        (
            "pixel kernel",
            f"{number(kernel.get('eps2d'), 3)} px² on the screen, {number(kernel.get('lens_blur'), 3)} px² of lens, "
            f"{kernel.get('supersample')} x supersampled"
            if kernel
            else "",
        ),
        ("Gaussians", number(last.get("gaussians"), 0) if last else ""),
        ("seed", f"{option(config, 'pipeline.seed')} (rounds), {option(config, 'machine.seed')} (training)"),
        ("versions", versions or "not recorded by the version that trained this run"),
        ("command", tag("code", str(made["command"])) if made.get("command") else ""),
    ]
    text = json.dumps(config, indent=2, default=str, sort_keys=True)
    return tag(
        "section",
        tag("h2", "What was done, and with what"),
        facts_list(pairs),
        tag("details", tag("summary", "The whole configuration"), tag("pre", text, tabindex="0")),
    )


def one_round(run: RunFacts, item: RoundFacts) -> Markup:
    """The plan's map, before and after, the contact sheet."""
    parts: list[Content] = [tag("h2", f"Round {item.number}: {_closer(run, item)} closer")]
    if item.verdict:
        parts.append(tag("p", tag("strong", _kept(item)), f": {item.verdict.get('reason', '')}"))
    else:
        parts.append(note("This round is not judged yet."))
    parts.append(notes("What could not be read:", item.problems))
    warnings = [str(warning) for plan in item.plans for warning in plan.get("warnings", [])]
    parts += [notes("The plan's warnings:", warnings), tag("h3", "Plan")]
    if item.plans:
        several = len(item.plans) > 1
        maps = [_map(item, plan, f", target {i + 1}" if several else "") for i, plan in enumerate(item.plans)]
        parts.append(tag("div", maps, class_="plans"))
        if not item.known:
            parts.append(tag("p", "The version that planned this round kept only the anchors.", class_="dim"))
    else:
        parts.append(note("This round has no plan yet."))
    parts += [tag("h3", "Before and after"), _comparisons(item), *_sheet(item), _views(item)]
    return tag("section", parts, id=f"round-{item.number}")


def generated(run: RunFacts) -> Markup:
    """How much of what the rounds trained on no photograph gave."""
    rows = []
    for item in run.rounds:
        real = item.real_share
        used = [view for view in item.views if view.used]
        bar = "–"
        if real is not None:
            label = f"real {percent(real)}, generated {percent(1 - real)}"
            widths = (f"width:{100 * real:.2f}%", f"width:{100 * (1 - real):.2f}%")
            inside = [tag("span", class_=kind, style=width) for kind, width in zip(("real", "made"), widths)]
            bar = tag("div", inside, class_="share", role="img", attributes={"aria-label": label})
        made = None if real is None else 1 - real
        known = percent(mean([view.decision.get("known_share") for view in used]))
        trust = percent(item.verdict.get("known_share")) if item.verdict else "–"
        rows.append(
            [
                str(item.number),
                _made_by(item),
                f"{len(used)} of {len(item.views)}",
                f"{sum(view.decision.get('verdict') == 'accepted' for view in item.views)}",
                bar,
                percent(real),
                percent(made),
                known,
                trust,
            ]
        )
    head = [
        "Round", "refined by", "views used", "of them as refined", "", "real", "generated", "geometry known",
        "mean weight in the loss",
    ]  # fmt: skip
    return tag(
        "section",
        tag("h2", "What is generated"),
        table(head, rows, "Share of the pixels of the close-ups that a round trained on"),
        tag("p", _explained(run), class_="dim"),
    )


def cost(run: RunFacts) -> Markup:
    """Time per stage and memory."""
    rows = []
    for item in run.rounds:
        seconds = item.report.get("seconds") or {}
        views = mean([view.header.get("seconds") for view in item.views])
        memory = number(item.report.get("peak_memory_mb"), 0, " MB")
        gpu = item.report.get("peak_gpu_memory_mb")
        rows.append(
            [
                str(item.number),
                *(duration(seconds.get(stage)) for stage in STAGES),
                duration(sum(seconds.values())) if seconds else "–",
                duration(views),
                memory + (f", GPU {number(gpu, 0, ' MB')}" if gpu else ""),
                number(item.report.get("gaussians"), 0),
            ]
        )
    head = ["Round", *STAGES.values(), "together", "per view refined", "peak memory of the process", "Gaussians"]
    return tag("section", tag("h2", "Time and memory"), table(head, rows, "Wall time of each stage"))


def _closer(run: RunFacts, item: RoundFacts) -> str:
    zoom = item.report.get("zoom") or next((plan.get("zoom_total") for plan in item.plans), None)
    if zoom is None:
        step = option(run.config, "pipeline.planner.zoom")
        zoom = step**item.number if isinstance(step, (int, float)) else None
    return f"{zoom:g}x" if isinstance(zoom, (int, float)) else "–"


def _kept(item: RoundFacts) -> str:
    if not item.verdict:
        return "not judged yet"
    word = "kept" if item.verdict.get("accepted") else "not kept"
    return word if item.report else f"{word}, still being trained"


def _three(*values: float | None) -> str:
    return " → ".join(number(value) for value in values) + " dB" if any(v is not None for v in values) else "–"


def _map(item: RoundFacts, plan: dict[str, Any], which: str) -> Markup:
    try:
        return plan_map(plan, item.known, f"Plan of round {item.number}{which}")
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        return note(f"This plan cannot be drawn: {problem!r}")


def _comparisons(item: RoundFacts) -> Markup:
    chosen = _chosen(item.views)
    if not chosen:
        return note("No view of this round has been refined yet.")
    pictures = [comparison(view, f"mark-{item.number}-{view.name}") for view in chosen]
    rest = len(item.views) - len(chosen)
    more = tag("p", f"{rest} more are on the contact sheet.", class_="dim") if rest > 0 else None
    return tag("div", tag("div", pictures, class_="views"), more)


def _chosen(views: list[ViewFacts]) -> list[ViewFacts]:
    """Frontier views first, which are the closest, then an even spread of the others."""
    ordered = sorted(views, key=lambda view: ("frontier" not in view.name, not view.used, view.name))
    frontier = [view for view in ordered if "frontier" in view.name][: COMPARISONS // 2 + 1]
    others = [view for view in ordered if "frontier" not in view.name]
    room = min(COMPARISONS - len(frontier), len(others))
    return frontier + [others[(2 * i + 1) * len(others) // (2 * room)] for i in range(room)]


def _sheet(item: RoundFacts) -> list[Content]:
    if item.contact_sheet is None:
        return []
    try:
        sheet = embed_sheet(item.contact_sheet, SHEET_WIDTH)
    except (OSError, ValueError) as problem:
        return [note(f"The contact sheet cannot be shown: {problem}")]
    alt = f"Contact sheet of round {item.number}: render, mask, reliable, refined and after fine-tuning of every view"
    picture = tag("img", src=sheet.uri, alt=alt, width=sheet.width, height=sheet.height)
    attributes = {"aria-label": f"contact sheet of round {item.number}"}
    region = tag("div", picture, class_="sheet", tabindex="0", role="region", attributes=attributes)
    return [tag("details", tag("summary", "Contact sheet: every view, what was known and what was made of it"), region)]


def _views(item: RoundFacts) -> Markup | None:
    if not item.views:
        return None
    rows = [
        [
            view.name,
            str(view.decision.get("verdict", "–")).replace("_", " "),
            str(view.decision.get("reason", "")),
            _three(view.decision.get("psnr_before"), view.decision.get("psnr_after"), view.psnr_after),
            percent(view.real_share),
            *_how(view),
        ]
        for view in item.views
    ]
    head = [
        "View", "gate", "why", "reliable pixels: render → refined → after", "real pixels", "refined by", "references",
        "time", "peak memory",
    ]  # fmt: skip
    return tag("details", tag("summary", "Every view in figures"), table(head, rows, f"Views of round {item.number}"))


def _how(view: ViewFacts) -> list[str]:
    """By what, with which references, how long, how much memory; dashes where an earlier version refined it."""
    record = view.header.get("pass") or {}
    by = str(record.get("refiner", "–"))
    if record.get("frames", 1) > 1:
        by += f", pass {record.get('pass_number')} of {record['frames']} pictures"
    notes = ", ".join(f"{name} {_short(value)}" for name, value in (view.header.get("notes") or {}).items())
    references = ", ".join(map(str, record.get("references") or [])) or "–"
    memory = f"{number(record.get('peak_memory_mb'), 0, ' MB')} ({record.get('memory_of')})" if record else "–"
    return [f"{by} ({notes})" if notes else by, references, duration(view.header.get("seconds")), memory]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _made_by(item: RoundFacts) -> str:
    """The refiners of a round's views, and whether they invent."""
    records = [view.header.get("pass") or {} for view in item.views]
    named = {str(record["refiner"]): bool(record.get("generates")) for record in records if record.get("refiner")}
    words = [f"{name} ({'invents' if invents else 'invents nothing'})" for name, invents in named.items()]
    return ", ".join(words) or "–"


def _explained(run: RunFacts) -> str:
    text = (
        "Real: real photographs agree on the pixel's colour, at the scale that they resolve. Generated: no photograph "
        "gave it. "
    )
    last = next((item.report for item in reversed(run.rounds) if item.report), {})
    if (last.get("made_with") or {}).get("generates") is False:
        text += "This refiner invents nothing: its generated pixels are the model's own render, and count for little. "
    if (last.get("made_with") or {}).get("generates") is True:
        text += "What the refiner invented looks plausible and is not evidence of what is there. "
    return text + "Views that the gate rejected are left out."
