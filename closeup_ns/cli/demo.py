"""`closeup-gs demo`: the bench's protocol `demo` with its two most telling rows, and the dive as one picture."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from closeup_ns.bench.experiment import ExperimentResult
from closeup_ns.cli.bench import Bench


@dataclass
class Demo:
    """Render a scene with known close-ups, train on its far photographs, compare with the truth.

    It is ``closeup-gs bench --protocol demo --methods plain closeup-gs --quick``; the bench itself has every other row.
    """

    output: Path = Path("outputs/demo")
    """Folder for the scene, the runs, the tables and the pictures."""
    base_steps: int = 0
    """Steps of the base phase; 0: 3000."""
    round_steps: int = 0
    """Steps of each round; 0: 500. Of three rounds (3x, 9x, 27x) two are trained where there is no generative refiner:
    the photographs show nothing new at 27x. The row without rounds trains as many steps as three rounds have."""
    hero: Path | None = None
    """Also write the dive, as one wide picture, here (for the README)."""

    def main(self) -> list[ExperimentResult]:
        """Run what is left to run, and say where tables and pictures are. CloseupError where every training failed."""
        bench = Bench(
            "demo", ("plain", "closeup-gs"), output=self.output, quick=True, base_steps=self.base_steps,
            round_steps=self.round_steps,
        )  # fmt: skip
        experiments = bench.main()
        if self.hero is not None:
            shutil.copyfile(self.output / "pictures" / "demo-table-dive.png", self.hero)
        return experiments
