"""`closeup-gs report`: one page about a run, from its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from closeup_ns.report.write import write_report


@dataclass
class Report:
    """Write one self-contained HTML page about a closeup-gs run: plans, pictures, quality, what is generated, cost.

    It reads the run's files alone, also while the run is training, and opens from disk without a server or network.
    """

    load_config: Path
    """config.yml of the run."""
    output: Path | None = None
    """The page; rounds/report.html in the run's folder by default."""
    scores: Path | None = None
    """What ns-eval wrote about the run; eval.json beside config.yml by default, where there is one."""

    def main(self) -> Path:
        """Write it and say where."""
        path = write_report(self.load_config, self.output, self.scores)
        print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")
        return path
