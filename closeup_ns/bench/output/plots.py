"""Plots of results: quality against zoom, and the paper's Figure 5.

Each function returns matplotlib's figure; `save_figure` writes it as PNG and SVG.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from closeup_ns.atomic import atomic_path
from closeup_ns.bench.output.results import Result, close_scales, compare, label_of, methods_of, metrics_of
from closeup_ns.bench.output.tables import NAMES, UNITS, arrow, mean_seconds
from closeup_ns.metrics.scores import CLOSE
from closeup_ns.metrics.shot import scale_label

_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#B8A800")
"""Okabe and Ito's colours, which people with any colour vision tell apart; the yellow is darker, for white paper."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", ":")
VIEWS = re.compile(r"(select|random)-(\d+)")
"""Rows of Figure 5: with and without selection, and the number of views."""
_PANEL = (3.6, 3.0)
"""Width and height of a panel in inches."""


class Style(NamedTuple):
    """How a method is drawn."""

    color: str
    marker: str
    line: str


_OURS = Style("#D55E00", "*", "-")


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style per method: closeup-gs always has the same, others take theirs in order."""
    others = cycle(Style(*look, line) for line, look in product(_LINES, zip(_PALETTE, _MARKERS)))
    return {method: _OURS if method == "closeup-gs" else next(others) for method in methods}


def quality_figure(results: Sequence[Result], look: Mapping[str, Style]) -> Figure:
    """Quality against zoom: a panel per metric, a line per method, far views at 1.

    Means are those of the tables (same images for all methods); bars are the standard deviation over seeds.
    """
    metrics, far = metrics_of(results), any(r.scores and 1 in r.scores.scales() for r in results)
    scales = ([1.0] if far else []) + close_scales(results)
    columns = min(3, len(metrics)) or 1
    rows = math.ceil(len(metrics) / columns) or 1
    figure = _figure(columns, rows)
    for place, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(rows, columns, place)
        found = pd.concat({scale: compare(results, metric, scale_label(scale)).means for scale in scales})
        for method in methods_of(results):
            if method in found.index.get_level_values(1):
                _line(axes, found.xs(method, level=1), look[method], label_of(results, method))
        unit = f" ({UNITS[metric]})" if metric in UNITS else ""
        label = f"{NAMES.get(metric, metric)}{unit} {arrow(results, metric)}"
        axes.set(xscale="log", xlabel="zoom: times nearer than the photographs", ylabel=label)
        axes.set_xticks(scales, [scale_label(scale) for scale in scales])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    _legend(figure)
    return figure


def views_table(results: Sequence[Result]) -> pd.DataFrame:
    """Figure 5: index (``select`` or ``random``, number of views), columns mean and spread of the close-ups' PSNR over
    the same images, and seconds that refinement took, mean over experiments.
    """
    own = [result for result in results if VIEWS.fullmatch(result.experiment.method)]
    means = compare(own, "psnr", CLOSE).means
    seconds = [mean_seconds(results, method, "refine") for method in means.index]
    kinds = [(method.split("-")[0], int(method.split("-")[1])) for method in means.index]
    index = pd.MultiIndex.from_tuples(kinds, names=["kind", "views"])
    return means.assign(seconds=pd.Series(seconds, index=means.index, dtype=float)).set_index(index).sort_index()


def views_figure(results: Sequence[Result]) -> Figure:
    """Figure 5: number of views against PSNR and against the seconds that refining them takes."""
    figure, found = _figure(2, 1), views_table(results)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    looks = {"select": _OURS, "random": Style(_PALETTE[0], "o", "--")}
    labels = {"select": "with selection", "random": "without selection"}
    for kind in [kind for kind in looks if kind in found.index.get_level_values(0)]:
        points = found.loc[kind]
        _line(left, points, looks[kind], labels[kind])
        timed = pd.DataFrame({"mean": points.seconds, "spread": math.nan}).dropna(subset="mean")
        _line(right, timed, looks[kind], labels[kind])
    counts = sorted(set(found.index.get_level_values(1)))
    for axes, name in ((left, "PSNR of close-ups (dB) ↑"), (right, "refinement (s) ↓")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set(xlabel="views that a round refines", ylabel=name)
        axes.grid(alpha=0.3)
    right.set_ylim(bottom=0)
    _legend(figure)
    return figure


def save_figure(figure: Figure, stem: Path, suffixes: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """Write ``stem`` with each suffix, whole or not at all; equal figures make equal files."""
    written = [stem.with_name(f"{stem.name}{suffix}") for suffix in suffixes]
    for path in written:
        with matplotlib.rc_context({"svg.hashsalt": "closeup-ns"}), atomic_path(path) as temporary:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(temporary, bbox_inches="tight", metadata=metadata)
    return written


def _figure(columns: int, rows: int) -> Figure:
    return Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), dpi=150, layout="constrained")


def _line(axes: Any, points: pd.DataFrame, style: Style, label: str) -> None:
    """``mean`` over the index, with bars of ``spread`` where there is any."""
    bars = points["spread"].fillna(0.0) if points["spread"].notna().any() else None
    axes.errorbar(
        points.index, points["mean"], yerr=bars, color=style.color, linestyle=style.line, marker=style.marker,
        markersize=7, capsize=3, label=label,
    )  # fmt: skip


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(4, len(entries)))
