"""The paper's tables out of cells: numbers, marks and footnotes. `closeup_ns.bench.typeset` writes them down.

Every column compares like with like (`closeup_ns.bench.results.compare`); what cannot be compared, or is not there,
carries a mark whose footnote says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from closeup_ns.bench.results import (
    Comparison,
    Mean,
    Result,
    close_scales,
    compare,
    is_higher_better,
    methods_of,
    metrics_of,
)
from closeup_ns.metrics.scores import CLOSE
from closeup_ns.metrics.shot import scale_label

FAR = scale_label(1.0)
NAMES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "cc_psnr": "colour-fitted PSNR",
    "sharpness": "sharpness",
    "lpips_vgg": "LPIPS (VGG)",
    "lpips_alex": "LPIPS (AlexNet)",
    "dino": "DINO",
    "metaiqa": "MetaIQA",
}
"""What readers call the metrics."""
UNITS = {"psnr": "dB", "cc_psnr": "dB"}
_DIGITS = {"psnr": 2, "cc_psnr": 2, "niqe": 2, "musiq": 2}
_NO_RANK = {"sharpness"}
"""1 is as sharp as the photograph and more is noise, so the largest is not the best."""
MANY_SCALES = 4
"""Up to so many scales of close-ups have columns of their own; more are taken together."""


@dataclass(frozen=True)
class Column:
    """A column's head."""

    name: str
    group: str = ""
    """What stands above it, over neighbours of the same group."""
    arrow: str = ""
    images: str = ""
    """How many images each of its means is over."""
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A figure, or what stands in its place."""

    text: str
    best: bool = False
    marks: tuple[int, ...] = ()
    mean: Mean | None = None


@dataclass(frozen=True)
class TableRow:
    """One method."""

    method: str
    label: str
    entries: tuple[Entry, ...]
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table, ready to be typeset."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    footnotes: tuple[str, ...]
    """In the order of their marks, which count from 1."""
    remarks: tuple[str, ...] = ()
    """What holds for the whole table."""


@dataclass(frozen=True)
class Wanted:
    """A column that a table asks for. It is left out, with a remark, where no row has it."""

    metric: str
    group: str
    """Which images: ``far``, ``27x``, ``close``."""
    heading: str = ""
    """What stands above the column."""


@dataclass
class Footnotes:
    """Numbers footnotes in the order in which they are needed; the same text keeps its number."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> int:
        """The number of ``text``, from 1."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def best_lpips(results: Sequence[Result]) -> str:
    """The backbone that papers use where it was computed, else nerfstudio's."""
    return (
        "lpips_alex" if "lpips_alex" in metrics_of(results) and "lpips_vgg" not in metrics_of(results) else "lpips_vgg"
    )


def table_1(results: Sequence[Result], about: str) -> Table:
    """Close-ups against the truth and without it, far views apart (the paper's Table 1)."""
    lpips = best_lpips(results)
    wanted = [Wanted(metric, CLOSE, "close-ups") for metric in ("psnr", "ssim", lpips, "dino", "metaiqa")]
    wanted += [Wanted(metric, FAR, "far views") for metric in ("psnr", "ssim", lpips)]
    return build_table("table-1", "Table 1: close-ups, and far views apart", results, wanted, about)


def table_2(results: Sequence[Result], about: str) -> Table:
    """The last scale and all close-ups, by metrics that need no truth (the paper's Table 2)."""
    scales = close_scales(results)
    last = scale_label(scales[-1]) if scales else CLOSE
    wanted = [
        Wanted(metric, group, heading)
        for group, heading in ((last, f"last round ({last} closer)"), (CLOSE, "overall"))
        for metric in ("dino", "metaiqa")
    ]
    return build_table("table-2", "Table 2: progressive update, and without its parts", results, wanted, about)


def table_3(results: Sequence[Result], about: str) -> Table:
    """Ways to refine (the paper's Table 3)."""
    wanted = [Wanted(metric, CLOSE, "close-ups") for metric in ("psnr", "ssim", best_lpips(results))]
    return build_table("table-3", "Table 3: ways to refine", results, wanted, about)


def table_5(results: Sequence[Result], about: str) -> Table:
    """Views, what they bring and what they cost (the paper's Figure 5 as a table)."""
    table = build_table("figure-5", "Figure 5: views that a round refines", results, [Wanted("psnr", CLOSE)], about)
    rows = []
    for row in table.rows:
        spent = mean_seconds(results, row.method, "refine")
        rows.append(replace(row, entries=(*row.entries, Entry("-" if spent is None else f"{spent:.1f}"))))
    return replace(table, columns=(*table.columns, Column("refinement, s")), rows=tuple(rows))


def mean_seconds(results: Sequence[Result], method: str, stage: str) -> float | None:
    """Wall time of a stage, mean over the finished cells of a method that have one; None where none has."""
    found = [r.cell.seconds[stage] for r in results if r.cell.method == method and r.scores and stage in r.cell.seconds]
    return math.fsum(found) / len(found) if found else None


def scale_tables(results: Sequence[Result], about: str) -> list[Table]:
    """Methods by scales: PSNR with SSIM, then whatever else was computed, two metrics a table."""
    scales = close_scales(results)
    groups = [FAR, *(scale_label(scale) for scale in scales)] if len(scales) <= MANY_SCALES else [FAR, CLOSE]
    present = metrics_of(results) or ["psnr", "ssim"]
    tables = []
    for start in range(0, len(present), 2):
        pair = present[start : start + 2]
        wanted = [Wanted(m, g, "close-ups" if g == CLOSE else g) for g in groups for m in pair]
        names = " and ".join(NAMES.get(metric, metric) for metric in pair)
        name = "scales" if start == 0 else f"scales-{'-'.join(pair)}".replace("+", "plus").replace(":", "-")
        tables.append(build_table(name, f"Every scale: {names}", results, wanted, about))
    return tables


def build_table(name: str, title: str, results: Sequence[Result], wanted: Sequence[Wanted], about: str) -> Table:
    """A table of one row per method of ``results``, in their order. ``about`` ends its caption."""
    compared = [(want, compare(results, want.metric, want.group)) for want in wanted]
    kept = [(want, comparison) for want, comparison in compared if comparison.means] or compared
    notes = Footnotes()
    columns, cells = [], []
    for want, comparison in kept:
        columns.append(_column(want, comparison, results, notes))
        cells.append(_entries(comparison, results, notes))
    rows = [
        TableRow(method, _label(results, method), tuple(c[method] for c in cells), _row_marks(results, method, notes))
        for method in methods_of(results)
    ]
    extra_columns, extra, said = _training(results)
    full = [replace(row, entries=row.entries + extra[row.method]) for row in rows]
    remarks = [_why_left_out(want, results) for want, comparison in compared if not comparison.means]
    caption = f"{_over(results)} {said} {about}".replace("  ", " ").strip()
    return Table(
        name,
        title,
        caption,
        (*columns, *extra_columns),
        tuple(full),
        tuple(notes.texts),
        tuple(dict.fromkeys(remarks)),
    )


def arrow(results: Sequence[Result], metric: str) -> str:
    """Where better is: up, down, or towards 1."""
    return "→ 1" if metric in _NO_RANK else "↑" if is_higher_better(results, metric) else "↓"


def printed(metric: str, mean: Mean) -> str:
    """A mean as tables show it, with its spread over seeds."""
    digits = _DIGITS.get(metric, 3)
    return f"{mean.value:.{digits}f}" + ("" if mean.spread is None else f" ± {mean.spread:.{digits}f}")


def _column(want: Wanted, comparison: Comparison, results: Sequence[Result], notes: Footnotes) -> Column:
    marks = []
    if comparison.provenances > 1:
        marks.append(notes.mark(f"{NAMES.get(want.metric, want.metric)} was computed in {comparison.provenances} ways"
                                " (results.json says which); these figures do not compare"))  # fmt: skip
    if comparison.means and not comparison.images:
        marks.append(notes.mark("the rows have no image in common: each is over its own, and they do not compare"))
    elif comparison.images < comparison.of:
        marks.append(notes.mark(_narrowed(comparison, results)))
    if not comparison.means:
        images = ""
    elif not comparison.images:
        images = "-"
    else:
        images = str(comparison.of) if comparison.images == comparison.of else f"{comparison.images} of {comparison.of}"
    return Column(NAMES.get(want.metric, want.metric), want.heading, arrow(results, want.metric), images, tuple(marks))


def _narrowed(comparison: Comparison, results: Sequence[Result]) -> str:
    """Who has not got what, so that the means are over fewer images."""
    parts = []
    for method, keys in comparison.lacking.items():
        scenes = sorted({scene for scene, _ in keys})
        parts.append(f"{_label(results, method)} lacks {len(keys)} ({', '.join(scenes)})")
    return f"over the {comparison.images} of {comparison.of} images that every row has: {'; '.join(parts)}"


def _entries(comparison: Comparison, results: Sequence[Result], notes: Footnotes) -> dict[str, Entry]:
    """A column's entries by method. Best is what prints like the best, where at least two rows can be ranked."""
    texts = {method: printed(comparison.metric, mean) for method, mean in comparison.means.items()}
    best = ""
    if comparison.comparable and len(texts) > 1 and comparison.metric not in _NO_RANK:
        sign = 1 if is_higher_better(results, comparison.metric) else -1
        best = _value_text(texts[max(comparison.means, key=lambda method: sign * comparison.means[method].value)])
    entries = {}
    for method in methods_of(results):
        if method in texts:
            won = bool(best) and _value_text(texts[method]) == best
            entries[method] = Entry(texts[method], won, (), comparison.means[method])
        else:
            entries[method] = _absent(results, method, comparison.metric, notes)
    return entries


def _value_text(text: str) -> str:
    return text.split(" ")[0]


def _absent(results: Sequence[Result], method: str, metric: str, notes: Footnotes) -> Entry:
    """What stands where a row has no figure: the state of its cells, or a dash with the reason."""
    own = [result for result in results if result.cell.method == method]
    if all(result.scores is None for result in own):
        states = {result.cell.state for result in own}
        for state in ("running", "waiting"):
            if state in states:
                return Entry(state)
        return Entry("failed")
    why = sorted({result.scores.missing[metric] for result in own if result.scores and metric in result.scores.missing})
    if not why:
        return Entry("-")
    return Entry("-", marks=(notes.mark(f"{NAMES.get(metric, metric)} is missing: {'; '.join(why)}"),))


def _row_marks(results: Sequence[Result], method: str, notes: Footnotes) -> tuple[int, ...]:
    """What a reader must know of a row: its own note, and which of its cells are not there and why."""
    marks = []
    for result in results:
        if result.cell.method != method:
            continue
        note = str(result.scores.about.get("note", "")) if result.scores is not None else ""
        if note:
            marks.append(notes.mark(note))
        if result.scores is None:
            cell = result.cell
            state = "is not finished" if cell.state in ("running", "waiting") else f"failed: {result.problem}"
            marks.append(notes.mark(f"{cell.label}, scene {cell.scene}, seed {cell.seed}, {state}"))
    return tuple(dict.fromkeys(marks))


def _label(results: Sequence[Result], method: str) -> str:
    return next(result.cell.label or method for result in results if result.cell.method == method)


def _why_left_out(want: Wanted, results: Sequence[Result]) -> str:
    reasons = {r.scores.missing[want.metric] for r in results if r.scores and want.metric in r.scores.missing}
    where = {CLOSE: " of close-ups", FAR: " of far views"}.get(want.group, f" at {want.group}")
    where = where if want.metric in metrics_of(results) else ""
    name = NAMES.get(want.metric, want.metric)
    if reasons:
        return f"{name} is missing: {'; '.join(sorted(reasons))}"
    return f"{name}{where} is missing: it was not computed"


def _over(results: Sequence[Result]) -> str:
    """The sentence that says what the means are over."""
    scenes = list(dict.fromkeys(result.cell.scene for result in results))
    seeds = sorted({result.cell.seed for result in results})
    over = f"scene {scenes[0]}" if len(scenes) == 1 else f"means over {len(scenes)} scenes ({', '.join(scenes)})"
    over = f"Protocol {results[0].cell.protocol}, {over}"
    if len(seeds) == 1:
        return f"{over}, seed {seeds[0]}."
    return f"{over}, then over seeds {', '.join(map(str, seeds))} (± their standard deviation)."


def _training(results: Sequence[Result]) -> tuple[tuple[Column, ...], dict[str, tuple[Entry, ...]], str]:
    """Steps and seeds: a sentence where they are the same for every row, columns where not."""
    done = [result for result in results if result.scores is not None]
    steps = {m: sorted({r.cell.steps for r in done if r.cell.method == m}) for m in methods_of(results)}
    seeds = {m: len({r.cell.seed for r in done if r.cell.method == m}) for m in methods_of(results)}
    columns: list[Column] = []
    extra: dict[str, tuple[Entry, ...]] = dict.fromkeys(steps, ())
    said = ""
    counts = {tuple(s) for s in steps.values() if s}
    if len(counts) == 1 and len(one := next(iter(counts))) == 1:
        said = f"{one[0]} training steps." if one[0] else ""
    elif counts:
        columns.append(Column("steps"))
        for method, own in steps.items():
            extra[method] += (Entry(", ".join(str(step) if step else "none" for step in own) or "-"),)
    if len({count for count in seeds.values() if count}) > 1:
        columns.append(Column("seeds"))
        for method, count in seeds.items():
            extra[method] += (Entry(str(count) if count else "-"),)
    return tuple(columns), extra, said
