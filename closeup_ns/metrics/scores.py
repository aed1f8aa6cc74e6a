"""Results of an evaluation: one row per image, means per scale, and what could not be computed and why.

The file format (``scores.json``) is the common language of ``closeup-gs eval``, ``closeup-gs bench`` and the reports.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.errors import DataError
from closeup_ns.metrics.metric import Provenance
from closeup_ns.metrics.shot import scale_label
from closeup_ns.reading import checked, reading

SCHEMA = 1
"""Raised when a reader of today could misread a file of tomorrow."""
CLOSE = "close"
"""Key of the mean over all close-ups; far views are never mixed in."""


@dataclass(frozen=True)
class Row:
    """One image's figures."""

    image: str
    scale: float
    values: dict[str, float]
    """Metric name -> value. A metric that does not apply to this image is absent."""
    reference: str = ""
    """The photograph that reference metrics compared with."""


@dataclass(frozen=True)
class Scores:
    """Figures of one method on one set of cameras."""

    rows: list[Row]
    metrics: dict[str, Provenance]
    """What was computed, and with what."""
    missing: dict[str, str]
    """Metrics that could not be computed -> why."""
    higher_is_better: dict[str, bool]
    about: dict[str, Any] = field(default_factory=dict)
    """Run, config, commit, cameras, options: whatever a reader needs to repeat it. JSON-able."""

    def scales(self) -> list[float]:
        """Scales in the rows, far first."""
        return sorted({row.scale for row in self.rows})

    def means(self) -> dict[str, dict[str, float]]:
        """Scale label -> metric -> mean over images that have it; ``close`` is over all images nearer than far."""
        groups = {scale_label(scale): [row for row in self.rows if row.scale == scale] for scale in self.scales()}
        nearer = [row for row in self.rows if row.scale > 1]
        if nearer:
            groups[CLOSE] = nearer
        return {label: _mean_values(rows) for label, rows in groups.items()}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the means for people and scripts."""
        return {"schema": SCHEMA, **asdict(self), "means": self.means()}


def write_scores(scores: Scores, folder: Path) -> None:
    """Write scores.json (everything), scores.csv (a line per image) and scores.md (means) into ``folder``."""
    write_json(folder / "scores.json", scores.to_dict())
    names = sorted(scores.metrics)
    with atomic_path(folder / "scores.csv") as temporary, open(temporary, "w", newline="", encoding="utf8") as written:
        table = csv.writer(written)
        table.writerow(["image", "scale", "reference", *names])
        for row in scores.rows:
            table.writerow([row.image, f"{row.scale:g}", row.reference, *(row.values.get(name, "") for name in names)])
    with atomic_path(folder / "scores.md") as temporary:
        temporary.write_text(markdown(scores), encoding="utf8")


def read_scores(path: Path) -> Scores:
    """Read a scores.json; means are computed anew. DataError where it is missing, broken, or of another schema."""
    remedy = "Score it again"
    with reading(path, remedy):
        content = json.loads(path.read_bytes())
        if content["schema"] != SCHEMA:
            raise DataError(f"{path} has schema {content['schema']!r}, this version reads {SCHEMA}. {remedy}")
    return checked(Scores, content, path, remedy)


def markdown(scores: Scores) -> str:
    """Means per scale as a Markdown table, what is missing below it."""
    names = sorted(scores.metrics)
    head = ["images at", *(f"{name} {'↑' if scores.higher_is_better[name] else '↓'}" for name in names)]
    body = [[label, *(_figure(values.get(name)) for name in names)] for label, values in scores.means().items()]
    lines = ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body]]
    lines += ["", *(f"- {name} is missing: {reason}" for name, reason in sorted(scores.missing.items()))]
    return "\n".join(lines).rstrip() + "\n"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def _mean_values(rows: Sequence[Row]) -> dict[str, float]:
    names = sorted({name for row in rows for name in row.values})
    columns = {name: [row.values[name] for row in rows if name in row.values] for name in names}
    return {name: math.fsum(values) / len(values) for name, values in columns.items()}
