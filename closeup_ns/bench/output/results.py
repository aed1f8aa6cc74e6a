"""Means of experiments: every mean of a column is over the same images, and rows that lack images are named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from closeup_ns.bench.experiment import ExperimentResult
from closeup_ns.errors import DataError
from closeup_ns.metrics.scores import CLOSE, Scores, read_scores
from closeup_ns.metrics.shot import scale_label
from closeup_ns.metrics.suite import METRICS


@dataclass(frozen=True)
class Result:
    """An experiment with its figures."""

    experiment: ExperimentResult
    scores: Scores | None
    """None where it is not done, or where its scores cannot be read."""
    problem: str = ""
    """Why there are none: one line."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One metric on one group of images for all methods."""

    means: pd.DataFrame
    """Index: methods that have any such image. Columns: ``mean`` over images, then scenes, then seeds, and ``spread``,
    the standard deviation over seeds (of a sample, n - 1; NaN for one seed)."""
    images: int
    """That every method and seed has: what the means are over. 0 where they have none in common."""
    of: int
    """That any of them has."""
    lacking: dict[str, list[str]]
    """Method -> scenes with an image that another method has and it has not, in any of its seeds."""
    ways: int
    """In how many ways the metric was computed; above 1, the figures do not compare."""

    @property
    def comparable(self) -> bool:
        """Whether the means may be ranked: over common images, by one and the same metric."""
        return self.images > 0 and self.ways == 1


def load_results(experiments: Sequence[ExperimentResult]) -> list[Result]:
    """Read each experiment's scores. What cannot be read is a failed experiment with its reason; nothing is raised."""
    results = []
    for experiment in experiments:
        if experiment.state != "done":
            results.append(Result(experiment, None, last_line(experiment.error) or experiment.state))
            continue
        try:
            results.append(Result(experiment, read_scores(experiment.scores)))
        except DataError as problem:
            results.append(Result(experiment, None, last_line(str(problem))))
    return results


def last_line(text: str, limit: int = 240) -> str:
    """The last line that says something, cut to ``limit`` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    return line if len(line) <= limit else line[: limit - 3] + "..."


def methods_of(results: Sequence[Result]) -> list[str]:
    """Names of the methods in the order of their first experiment."""
    return list(dict.fromkeys(result.experiment.method for result in results))


def label_of(results: Sequence[Result], method: str) -> str:
    """What tables call a method."""
    return next(result.experiment.label or method for result in results if result.experiment.method == method)


def image_values(results: Sequence[Result]) -> pd.DataFrame:
    """A line per image and metric. Values that are no finite numbers, which a foreign file may hold, are left out."""
    lines = [
        (e.scene, e.method, e.seed, row.image, row.scale, metric, value, _way(scores, metric))
        for e, scores in ((r.experiment, r.scores) for r in results if r.scores is not None)
        for row in scores.rows
        for metric, value in row.values.items()
        if math.isfinite(value)
    ]
    return pd.DataFrame(lines, columns=["scene", "method", "seed", "image", "scale", "metric", "value", "way"])


def close_scales(results: Sequence[Result]) -> list[float]:
    """Scales of the close-ups that anything was scored at, far ones first."""
    return sorted({row.scale for result in results if result.scores for row in result.scores.rows if row.scale > 1})


def metrics_of(results: Sequence[Result]) -> list[str]:
    """Metrics that any image has: ours in the order of `METRICS`, then others by name."""
    found = {name for r in results if r.scores for row in r.scores.rows for name in row.values}
    return [name for name in METRICS if name in found] + sorted(found - METRICS.keys())


def is_higher_better(results: Sequence[Result], metric: str) -> bool:
    """Direction of a metric, as the scores say it."""
    said = [r.scores.higher_is_better[metric] for r in results if r.scores and metric in r.scores.higher_is_better]
    return said[0] if said else METRICS[metric].higher_is_better if metric in METRICS else True


def compare(results: Sequence[Result], metric: str, group: str) -> Comparison:
    """Means of one metric over the images of ``group`` (``far``, ``3x``, ..., ``close``) that every row has.

    A row is every method with every seed that has at least one such image; one that has none does not narrow the
    others. Where rows have no image in common, each mean is over its own images, ``images`` is 0, and the figures must
    not be ranked. Scenes count equally, however many images they have; so do seeds.
    """
    values = image_values(results)
    chosen = values.scale > 1 if group == CLOSE else values.scale.map(scale_label) == group
    values = values[chosen & (values.metric == metric)]
    if values.empty:
        return Comparison(pd.DataFrame(columns=["mean", "spread"]), 0, 0, {}, 0)
    table = values.pivot_table(index=["method", "seed"], columns=["scene", "image"], values="value", sort=False)
    common = table.dropna(axis="columns")
    used = common if common.shape[1] else table
    by_method = used.T.groupby(level="scene").mean().mean().groupby(level="method", sort=False)
    absent = table.isna().T.groupby(level="scene").any()
    lacking = {m: [scene for scene in absent.index if absent.loc[scene, m].any()] for m in by_method.groups}
    return Comparison(
        pd.DataFrame({"mean": by_method.mean(), "spread": by_method.std()}),
        common.shape[1],
        table.shape[1],
        {method: scenes for method, scenes in lacking.items() if scenes},
        values.way.nunique(),
    )


def _way(scores: Scores, metric: str) -> tuple[str, ...]:
    used = scores.metrics.get(metric)
    return () if used is None else (used.implementation, used.backbone, used.sha256, used.notes)
