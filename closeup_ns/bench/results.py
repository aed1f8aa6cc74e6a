"""Cells side by side: every mean of a column is over the same images, and what lacks images is named."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from closeup_ns.bench.cell import CellResult
from closeup_ns.errors import DataError
from closeup_ns.metrics.scores import CLOSE, Row, Scores, read_scores
from closeup_ns.metrics.shot import scale_label
from closeup_ns.metrics.suite import METRICS

ImageKey = tuple[str, str]
"""Scene and image."""


@dataclass(frozen=True)
class Result:
    """A cell with its figures."""

    cell: CellResult
    scores: Scores | None
    """None where it is not done, or where its scores cannot be read."""
    problem: str = ""
    """Why there are none: one line."""


@dataclass(frozen=True)
class Mean:
    """A row's figure in a column: the mean over images, then scenes, then seeds."""

    value: float
    spread: float | None
    """Standard deviation over seeds (of a sample, n - 1); None for one seed."""
    seeds: int
    images: int
    """Images of each seed."""


@dataclass(frozen=True)
class Comparison:
    """One metric on one group of images for all methods."""

    metric: str
    group: str
    means: dict[str, Mean]
    """By method; methods without any such image are absent."""
    images: int
    """That every method and seed has: what the means are over."""
    of: int
    """That any of them has."""
    lacking: dict[str, list[ImageKey]]
    """Method -> images that another one has and it has not, in any of its seeds."""
    provenances: int
    """In how many ways the metric was computed; above 1, the figures do not compare."""

    @property
    def comparable(self) -> bool:
        """Whether the means may be ranked: over common images, by one and the same metric."""
        return self.images > 0 and self.provenances == 1


def load_results(cells: Sequence[CellResult]) -> list[Result]:
    """Read each cell's scores. What cannot be read is a failed cell with its reason; nothing is raised."""
    results = []
    for cell in cells:
        if cell.state != "done":
            results.append(Result(cell, None, last_line(cell.error) or cell.state))
            continue
        try:
            results.append(Result(cell, read_scores(cell.scores)))
        except DataError as problem:
            results.append(Result(cell, None, last_line(str(problem))))
    return results


def last_line(text: str, limit: int = 240) -> str:
    """The last line that says something, cut to ``limit`` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return line if len(line) <= limit else line[: limit - 3] + "..."


def methods_of(results: Sequence[Result]) -> list[str]:
    """Names of the methods in the order of their first cell."""
    return list(dict.fromkeys(result.cell.method for result in results))


def in_group(row: Row, group: str) -> bool:
    """Whether an image counts for ``close`` (all that is nearer than far) or for a scale's label."""
    return row.scale > 1 if group == CLOSE else scale_label(row.scale) == group


def close_scales(results: Sequence[Result]) -> list[float]:
    """Scales of the close-ups that anything was scored at, far ones first."""
    return sorted({row.scale for result in results if result.scores for row in result.scores.rows if row.scale > 1})


def metrics_of(results: Sequence[Result]) -> list[str]:
    """Metrics that any image has: ours in the order of `METRICS`, then others by name."""
    found = {name for r in results if r.scores for row in r.scores.rows for name in row.values}
    return [name for name in METRICS if name in found] + sorted(found - METRICS.keys())


def is_higher_better(results: Sequence[Result], metric: str) -> bool:
    """Direction of a metric, as the scores say it."""
    for result in results:
        if result.scores is not None and metric in result.scores.higher_is_better:
            return result.scores.higher_is_better[metric]
    return METRICS[metric].higher_is_better if metric in METRICS else True


def compare(results: Sequence[Result], metric: str, group: str) -> Comparison:
    """Means of one metric over the images of ``group`` (``far``, ``3x``, ..., ``close``) that every row has.

    A row is every method with every seed that has at least one such image; one that has none does not narrow the
    others. Where rows have no image in common, each mean is over its own images, ``images`` is 0, and the figures must
    not be ranked. Scenes count equally, however many images they have; so do seeds.
    """
    runs: dict[tuple[str, int], dict[ImageKey, float]] = {}
    ways = set()
    for result in results:
        values = _values(result, metric, group)
        if values:
            runs.setdefault((result.cell.method, result.cell.seed), {}).update(values)
            ways.add(_way(result.scores, metric))
    every = set().union(*runs.values())
    common = every.intersection(*runs.values())
    lacking: dict[str, list[ImageKey]] = {}
    for (method, _), values in runs.items():
        lacking[method] = sorted({*lacking.get(method, []), *(every - values.keys())})
    by_method: dict[str, list[dict[ImageKey, float]]] = {}
    for (method, _), values in runs.items():
        kept = {key: value for key, value in values.items() if key in common or not common}
        by_method.setdefault(method, []).append(kept)
    return Comparison(
        metric,
        group,
        {method: _mean(seeds) for method, seeds in by_method.items()},
        len(common),
        len(every),
        {method: keys for method, keys in lacking.items() if keys},
        len(ways),
    )


def _values(result: Result, metric: str, group: str) -> dict[ImageKey, float]:
    """Finite values by image; a NaN that somebody else's file may hold is no figure."""
    rows = result.scores.rows if result.scores is not None else []
    return {
        (result.cell.scene, row.image): row.values[metric]
        for row in rows
        if in_group(row, group) and metric in row.values and math.isfinite(row.values[metric])
    }


def _way(scores: Scores | None, metric: str) -> tuple[str, ...]:
    used = scores.metrics.get(metric) if scores is not None else None
    return () if used is None else (used.implementation, used.backbone, used.sha256, used.notes)


def _mean(seeds: Sequence[dict[ImageKey, float]]) -> Mean:
    per_seed = []
    for values in seeds:
        scenes: dict[str, list[float]] = {}
        for (scene, _), value in values.items():
            scenes.setdefault(scene, []).append(value)
        per_seed.append(math.fsum(math.fsum(own) / len(own) for own in scenes.values()) / len(scenes))
    spread = statistics.stdev(per_seed) if len(per_seed) > 1 else None
    return Mean(math.fsum(per_seed) / len(per_seed), spread, len(per_seed), min(len(values) for values in seeds))
