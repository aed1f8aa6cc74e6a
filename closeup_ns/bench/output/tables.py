"""The paper's tables out of experiments, as pandas frames of text, and how they are written as Markdown and LaTeX.

Every column compares like with like (`results.compare`); what cannot be compared, or is not there,
carries the number of a footnote that says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from closeup_ns.bench.methods import load_methods
from closeup_ns.bench.output.results import (
    Comparison,
    Result,
    close_scales,
    compare,
    is_higher_better,
    label_of,
    methods_of,
    metrics_of,
)
from closeup_ns.metrics.scores import CLOSE
from closeup_ns.metrics.shot import scale_label

FAR = scale_label(1.0)
NAMES = {
    "psnr": "PSNR",
    "psnr_registered": "registered PSNR",
    "ssim": "SSIM",
    "ssim_registered": "registered SSIM",
    "cc_psnr": "colour-fitted PSNR",
    "cc_psnr_registered": "registered, colour-fitted PSNR",
    "sharpness": "sharpness",
    "lpips_vgg": "LPIPS (VGG)",
    "lpips_alex": "LPIPS (AlexNet)",
    "dino": "DINO",
    "metaiqa": "MetaIQA",
}
"""What readers call the metrics."""
UNITS = dict.fromkeys(("psnr", "psnr_registered", "cc_psnr", "cc_psnr_registered"), "dB")
_TWO_DIGITS = {*UNITS, "niqe", "musiq"}
_NO_RANK = {"sharpness"}
"""1 is as sharp as the photograph and more is noise, so the largest is not the best."""
MANY_SCALES = 4
"""Up to so many scales of close-ups have columns of their own; more are taken together."""
IMAGES = "images"
"""The last line: how many images each mean is over."""
HEADINGS = {CLOSE: "close-ups", FAR: "far views"}
_SYMBOLS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "±": r"$\pm$", "×": r"$\times$", "–": "--"}

Wanted = tuple[str, str, str]
"""A column: metric, which images (``far``, ``27x``, ``close``), and what stands above it."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table, ready to be written."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    texts: pd.DataFrame
    """Text; index: the rows' labels; columns: (heading, name)."""
    best: np.ndarray
    """Which of them are the best of their column; bool, of the same shape."""
    footnotes: list[str] = field(default_factory=list)
    """In the order of their numbers, which count from 1."""


class _Footnotes(list[str]):
    """Numbers texts in the order in which they are needed; the same text keeps its number."""

    def mark(self, text: str) -> str:
        """What follows a text that ``text`` is about."""
        if text not in self:
            self.append(text)
        return f" [{self.index(text) + 1}]"


def paper_tables(results: Sequence[Result], rows: dict[str, set[str]], about: str) -> list[Table]:
    """The tables that these results make. ``rows``: names of the methods of the paper's tables, by table."""
    main, methods = rows["1"] | rows["default"] | rows["zoom"], set(methods_of(results))
    only = {name: rows[name] - main for name in ("2", "3", "fig5")}
    tables, lpips = [], best_lpips(results)
    plain = _of(results, methods - only["2"] - only["3"] - only["fig5"])
    if len(methods_of(plain)) > 1 or len(methods) == 1:
        wanted = [(metric, CLOSE) for metric in ("psnr", "ssim", lpips, "dino", "metaiqa")]
        wanted += [(metric, FAR) for metric in ("psnr", "ssim", lpips)]
        columns = [(metric, group, HEADINGS[group]) for metric, group in wanted]
        tables.append(build_table("table-1", "Table 1: close-ups, and far views apart", plain, columns, about))
    progressive, scales = _of(results, methods - only["3"] - only["fig5"]), close_scales(results)
    if (len(scales) > 1 or methods & only["2"]) and {"dino", "metaiqa"} & set(metrics_of(progressive)):
        last = scale_label(scales[-1])
        groups = ((last, f"last round ({last} closer)"), (CLOSE, "overall"))
        columns = [(metric, *group) for group in groups for metric in ("dino", "metaiqa")]
        title = "Table 2: progressive update, and without its parts"
        tables.append(build_table("table-2", title, progressive, columns, about))
    if methods & only["3"]:
        columns = [(metric, CLOSE, "close-ups") for metric in ("psnr", "ssim", lpips)]
        tables.append(build_table("table-3", "Table 3: ways to refine", _of(results, rows["3"]), columns, about))
    if methods & only["fig5"]:
        title, own = "Figure 5: views that a round refines", _of(results, rows["fig5"])
        tables.append(build_table("figure-5", title, own, [("psnr", CLOSE, "")], about, ("refine",)))
    return [*tables, *scale_tables(results, about)]


def scale_tables(results: Sequence[Result], about: str) -> list[Table]:
    """Methods by scales: two metrics a table."""
    scales = close_scales(results)
    groups = [FAR, *(scale_label(scale) for scale in scales)] if len(scales) <= MANY_SCALES else [FAR, CLOSE]
    present = metrics_of(results) or ["psnr", "ssim"]
    tables = []
    for start in range(0, len(present), 2):
        pair = present[start : start + 2]
        wanted = [(metric, group, "close-ups" if group == CLOSE else group) for group in groups for metric in pair]
        names = " and ".join(NAMES.get(metric, metric) for metric in pair)
        name = "scales" if start == 0 else re.sub("[^a-z0-9-]", "-", f"scales-{'-'.join(pair)}".lower())
        tables.append(build_table(name, f"Every scale: {names}", results, wanted, about))
    return tables


def build_table(
    name: str, title: str, results: Sequence[Result], wanted: Sequence[Wanted], about: str, stages: Sequence[str] = ()
) -> Table:
    """A table of one row per method of ``results``, in their order.

    Args:
        about: ends its caption.
        stages: of which the wall time has a column, mean over experiments.
    """
    methods, notes = methods_of(results), _Footnotes()
    compared = [(want, compare(results, want[0], want[1])) for want in wanted]
    kept = [(want, found) for want, found in compared if len(found.means)] or compared
    columns: dict[tuple[str, str], list[str]] = {}
    best: list[list[bool]] = []
    for (metric, _, heading), found in kept:
        texts, won = _column(results, metric, found, notes)
        head = f"{NAMES.get(metric, metric)} {arrow(results, metric)}{_remark(results, metric, found, notes)}"
        columns[(heading, head)] = [*texts, _images(found)]
        best.append([*won, False])
    training, said = _training(results, stages)
    for head, texts in training.items():
        columns[("", head)] = [*texts, ""]
        best.append([False] * (len(methods) + 1))
    labels = [label_of(results, method) + _row_marks(results, method, notes) for method in methods]
    texts = pd.DataFrame(columns, index=pd.Index([*labels, IMAGES]))
    for (metric, group, _), found in compared:
        if not len(found.means):
            notes.mark(_why_left_out(metric, group, results))
    caption = " ".join(f"{_over(results)} {said} {about}".split())
    return Table(name, title, caption, texts, np.array(best).T, list(notes))


def markdown(table: Table) -> str:
    """The table with its caption above it and its footnotes below."""
    heads = [", ".join(part for part in column if part) for column in table.texts.columns]
    lines = [["method", *heads], ["---", *("---:" for _ in heads)]]
    for label, texts, best in zip(table.texts.index, table.texts.to_numpy(), table.best):
        lines.append([markdown_text(label), *(f"**{t}**" if won else t for t, won in zip(texts, best))])
    text = f"**{markdown_text(table.title)}.** {markdown_text(table.caption)}\n\n"
    text += "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return text + "".join(f"\n[{n}] {markdown_text(note)}\n" for n, note in enumerate(table.footnotes, start=1))


def latex(table: Table, label: str) -> str:
    """The table as a float that needs booktabs and multirow. ``label`` follows ``tab:``."""
    bold = np.where(table.best, "textbf:--rwrap;", "")
    style: Any = table.texts.style.apply(lambda _: bold, axis=None).format(escape="latex")
    style = style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    text = style.to_latex(
        column_format="l" + "r" * table.texts.shape[1], hrules=True, multicol_align="c", position="t",
        position_float="centering", label=f"tab:{re.sub('[^A-Za-z0-9-]', '-', label)}",
        caption=rf"\textbf{{{latex_text(table.title)}.}} {latex_text(table.caption)}",
    )  # fmt: skip
    notes = " \\\\\n".join(f"{{[{n}]}} {latex_text(note)}" for n, note in enumerate(table.footnotes, start=1))
    if notes:
        text = text.replace(r"\end{table}", f"\\par\\smallskip\\raggedright\\footnotesize\n{notes}\n\\end{{table}}")
    for symbol, written in _SYMBOLS.items():
        text = text.replace(symbol, written)
    return "% needs \\usepackage{booktabs}\n" + text


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\|*_<>`])", r"\\\1", " ".join(text.split()))


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is, on one line."""
    escaped = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    escaped |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(escaped.get(character, character) for character in " ".join(text.split()))


def best_lpips(results: Sequence[Result]) -> str:
    """The backbone that papers use where it was computed, else nerfstudio's."""
    found = metrics_of(results)
    return "lpips_alex" if "lpips_alex" in found and "lpips_vgg" not in found else "lpips_vgg"


def mean_seconds(results: Sequence[Result], method: str, stage: str) -> float | None:
    """Time of a stage, mean over the finished experiments of a method that have one; None where none has."""
    found = [
        r.experiment.seconds[stage]
        for r in results
        if r.experiment.method == method and r.scores and stage in r.experiment.seconds
    ]
    return math.fsum(found) / len(found) if found else None


def arrow(results: Sequence[Result], metric: str) -> str:
    """Where better is: up, down, or towards 1."""
    return "→ 1" if metric in _NO_RANK else "↑" if is_higher_better(results, metric) else "↓"


def _of(results: Sequence[Result], methods: set[str]) -> list[Result]:
    return [result for result in results if result.experiment.method in methods]


def _column(
    results: Sequence[Result], metric: str, found: Comparison, notes: _Footnotes
) -> tuple[list[str], list[bool]]:
    """A column's texts, and which are best: those that print like the best, where at least two rows can be ranked."""
    digits = 2 if metric in _TWO_DIGITS else 3
    shown = found.means["mean"].astype(float).round(digits)
    ranked = found.comparable and len(shown) > 1 and metric not in _NO_RANK
    top = shown.max() if is_higher_better(results, metric) else shown.min()
    texts, won = [], []
    for method in methods_of(results):
        won.append(bool(ranked and method in shown and shown[method] == top))
        if method not in shown:
            texts.append(_absent(results, method, metric, notes))
            continue
        spread = float(found.means.at[method, "spread"])
        texts.append(f"{shown[method]:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}"))
    return texts, won


def _remark(results: Sequence[Result], metric: str, found: Comparison, notes: _Footnotes) -> str:
    """The mark of a column whose figures do not compare, or not over all images."""
    marks = ""
    if found.ways > 1:
        marks += notes.mark(
            f"{NAMES.get(metric, metric)} was computed in {found.ways} ways (results.json says which); these figures "
            "do not compare"
        )
    if len(found.means) and not found.images:
        return marks + notes.mark("the rows have no image in common: each is over its own, and they do not compare")
    if found.images < found.of:
        who = "; ".join(f"{label_of(results, m)} lacks some ({', '.join(s)})" for m, s in found.lacking.items())
        marks += notes.mark(f"over the {found.images} of {found.of} images that every row has: {who}")
    return marks


def _images(found: Comparison) -> str:
    if not len(found.means):
        return ""
    return str(found.of) if found.images == found.of else f"{found.images} of {found.of}" if found.images else "-"


def _absent(results: Sequence[Result], method: str, metric: str, notes: _Footnotes) -> str:
    """What stands where a row has no figure: the state of its experiments, or a dash with the reason."""
    own = _of(results, {method})
    if all(result.scores is None for result in own):
        return "running" if any(result.experiment.state == "running" for result in own) else "failed"
    why = sorted({result.scores.missing[metric] for result in own if result.scores and metric in result.scores.missing})
    return "-" + (notes.mark(f"{NAMES.get(metric, metric)} is missing: {'; '.join(why)}") if why else "")


def _row_marks(results: Sequence[Result], method: str, notes: _Footnotes) -> str:
    """What a reader must know of a row: its own note, and which of its experiments are not there and why."""
    marks: dict[str, None] = {}
    for result in _of(results, {method}):
        note = str(result.scores.about.get("note", "")) if result.scores is not None else ""
        if note:
            marks[notes.mark(note)] = None
        if result.scores is None:
            experiment = result.experiment
            state = "is not finished" if experiment.state == "running" else f"failed: {result.problem}"
            marks[notes.mark(f"{experiment.label}, scene {experiment.scene}, seed {experiment.seed}, {state}")] = None
    return "".join(marks)


def _why_left_out(metric: str, group: str, results: Sequence[Result]) -> str:
    reasons = {r.scores.missing[metric] for r in results if r.scores and metric in r.scores.missing}
    where = f" of {HEADINGS.get(group, group)}" if metric in metrics_of(results) else ""
    return f"{NAMES.get(metric, metric)}{where} is missing: {'; '.join(sorted(reasons)) or 'it was not computed'}"


def _over(results: Sequence[Result]) -> str:
    """The sentence that says what the means are over."""
    scenes = list(dict.fromkeys(result.experiment.scene for result in results))
    seeds = sorted({result.experiment.seed for result in results})
    over = f"scene {scenes[0]}" if len(scenes) == 1 else f"means over {len(scenes)} scenes ({', '.join(scenes)})"
    over = f"Protocol {results[0].experiment.protocol}, {over}"
    if len(seeds) == 1:
        return f"{over}, seed {seeds[0]}."
    return f"{over}, then over seeds {', '.join(map(str, seeds))} (± their standard deviation)."


def _training(results: Sequence[Result], stages: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    """Steps, seeds and times: a sentence on the steps where they are the same for every row, columns where not."""
    methods, columns, said = methods_of(results), dict[str, list[str]](), ""
    done = {method: [r.experiment for r in _of(results, {method}) if r.scores is not None] for method in methods}
    steps = {m: sorted({experiment.steps for experiment in own}) for m, own in done.items()}
    rows = load_methods()
    by_time = any(rows[method].cpu_time_of for method in methods if method in rows)
    if len({tuple(own) for own in steps.values() if own}) > 1 or any(len(own) > 1 for own in steps.values()):
        columns["steps"] = [", ".join(str(n) if n else "none" for n in steps[method]) or "-" for method in methods]
    else:
        said = next((f"{own[0]} training steps." for own in steps.values() if own and own[0]), "")
    seeds = [len({experiment.seed for experiment in done[method]}) for method in methods]
    if len({count for count in seeds if count}) > 1:
        columns["seeds"] = [str(count or "-") for count in seeds]
    heads = {"cpu": "training, CPU s"} if by_time else {}
    for stage, head in {**heads, **{stage: f"{stage}, s" for stage in stages}}.items():
        spent = [mean_seconds(results, method, stage) for method in methods]
        columns[head] = ["-" if seconds is None else f"{seconds:.1f}" for seconds in spent]
    return columns, said
