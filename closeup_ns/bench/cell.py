"""A cell: one method on one scene of a protocol with one seed. What it is, where it is, and what became of it.

Layout of a cell's folder, OUT/cells/PROTOCOL/SCENE/METHOD-seedN::

    status.json   `CellResult`, rewritten at each stage
    run/          what ns-train wrote, and its log
    renders/      NAME.png per camera of the case
    scores.json   closeup_ns.metrics.scores, with scores.csv and scores.md
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from closeup_ns.atomic import write_json
from closeup_ns.errors import DataError

State = Literal["waiting", "running", "done", "failed"]
STATUS = "status.json"
SCORES = "scores.json"
RENDERS = "renders"


@dataclass(frozen=True)
class CellResult:
    """What became of a cell. Tables are made of these."""

    protocol: str
    scene: str
    method: str
    """Name of the row in methods.yaml."""
    label: str
    """What tables call it."""
    seed: int
    state: State
    folder: Path
    """Holds scores.json and renders/ where ``state`` is done."""
    error: str = ""
    """Why it failed: the last lines of what was printed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of train, render and score; for methods with rounds also plan and refine, summed over rounds."""
    steps: int = 0
    """Training steps in total; 0 for a folder of renders."""
    identity: str = ""
    """Checksum of everything that the figures depend on; a cell with another one is run anew."""

    @property
    def renders(self) -> Path:
        """Pictures, NAME.png per camera of the case."""
        return self.folder / RENDERS

    @property
    def scores(self) -> Path:
        """scores.json."""
        return self.folder / SCORES

    def write(self) -> None:
        """Write status.json, whole or not at all."""
        content = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(self.folder / STATUS, content)


def read_cell(folder: Path) -> CellResult:
    """The cell in ``folder``. DataError where it has no readable status.json."""
    try:
        content: dict[str, Any] = json.loads((folder / STATUS).read_text(encoding="utf8"))
        if content["state"] not in get_args(State):
            raise ValueError(f"state {content['state']!r}")
        return CellResult(folder=folder, **content)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DataError(f"{folder} holds no cell of a bench ({problem!r})") from problem


def read_cells(out: Path) -> list[CellResult]:
    """All cells below OUT/cells, by protocol, scene, method and seed; folders that hold none are passed over."""
    found = []
    for path in sorted((out / "cells").glob(f"*/*/*/{STATUS}")):
        try:
            found.append(read_cell(path.parent))
        except DataError:
            continue
    return sorted(found, key=lambda cell: (cell.protocol, cell.scene, cell.method, cell.seed))
