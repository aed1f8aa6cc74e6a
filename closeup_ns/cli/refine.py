"""`closeup-gs refine`: refines a stored round with any refiner, without retraining."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from closeup_ns.errors import CloseupError
from closeup_ns.refine.options import RefinerConfig

Kind = Literal["auto", "reliable", "see3d", "command", "none"]
Enhancement = Literal["none", "see3d-sr", "command"]


@dataclass
class RefineStored:
    """Refine a stored round of a run again, with any refiner, and compare: nothing of the run is changed.

    The views, their images and masks, report.json and a contact sheet go into a folder of their own; a command that was
    stopped goes on where it was. The options below --pipeline.refiner are those of ns-train.
    """

    load_config: Path
    """The run: its folder, or its config.yml."""
    round: int = 1
    """Which of its rounds."""
    refiner: Kind | None = None
    """Short for --pipeline.refiner.kind."""
    enhance: Enhancement | None = None
    """Short for --pipeline.refiner.enhance.kind."""
    views: int | None = None
    """Refine only so many of the round's views; all by default."""
    data: Path | None = None
    """The capture, where it was moved since the run was trained and does not lie beside it."""
    output: Path | None = None
    """Folder for the views; RUN/refined/round_N-REFINER by default."""
    options: Annotated[tyro.conf.FlagConversionOff[RefinerConfig], tyro.conf.arg(name="pipeline.refiner")] = field(
        default_factory=RefinerConfig
    )
    """Every option of every refiner and enhancer."""

    def main(self) -> None:
        """Refine what is missing, and print a table and the folder."""
        options = self.options
        config = replace(
            options,
            kind=self.refiner or options.kind,
            enhance=replace(options.enhance, kind=self.enhance or options.enhance.kind),
        )
        if self.views is not None and self.views < 1:
            raise CloseupError(f"--views {self.views} refines nothing: give 1 or more, or leave it out for all")
        from closeup_ns.studio.refine_stored import refine_stored_round

        path = self.load_config / "config.yml" if self.load_config.is_dir() else self.load_config
        store, report = refine_stored_round(path, self.round, config, self.output, self.views, self.data)
        print_views(report["views"], f"round {self.round}: {report['made_with']['refiner']}")
        print(store.folder(self.round))


def print_views(views: dict[str, dict[str, Any]], title: str) -> None:
    """What the gate said of each view, and below the table why some are not used as refined."""
    table = Table("view", "gate", "reliable pixels, dB", "pass", "seconds", title=escape(title))
    for name, view in views.items():
        before, after = ("-" if view[key] is None else f"{view[key]:.2f}" for key in ("psnr_before", "psnr_after"))
        together = f"{view['pass_number']}, {view['frames']} pictures"
        verdict = view["verdict"].replace("_", " ")
        table.add_row(name, verdict, f"{before} -> {after}", together, f"{view['seconds']:.1f}")
    console = Console()
    console.print(table)
    for name, view in views.items():
        if not view["accepted"]:
            console.print(escape(f"{name}: {view['reason']}"), style="yellow", soft_wrap=True)
