"""`closeup-gs export`: a finished run as a splat file that looks right in other people's viewers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.errors import CloseupError, PhotographsGone
from closeup_ns.metrics.shot import scale_label
from closeup_ns.paths.start import choose_start
from closeup_ns.report.exported import page_command, page_settings
from closeup_ns.rounds.reporting.held_out import held_out_crops, held_out_rounds, mean_psnr
from closeup_ns.rounds.run import EvalPhotograph
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.studio.export import Splats, Viewer, fit, likeness, pictures_to_learn, renders_to_learn, write_ply
from closeup_ns.studio.loading import LoadedRun, ModelAlone, load_alone, load_run
from closeup_ns.views.psnr import mean_of_numbers, psnr

COMPARED = 8
"""Where there are no photographs, one in so many renders is compared with: the share that is held out by default."""


@dataclass
class Export:
    """Write a run as a .ply, fitted to how the viewer draws, and say what that costs, as near as originals reach.

    `ns-export gaussian-splat` writes the Gaussians as they are, which only this package draws as they were trained.
    """

    load_config: Path
    """config.yml of a finished run."""
    data: Path | None = None
    """The capture, where it was moved since the run was trained and does not lie beside it."""
    viewer: Annotated[Viewer, tyro.conf.arg(name="for")] = "antialiased"
    """How the viewer draws: antialiased (it must know the file's `SplatRenderMode: mip`, or be told), classic, or
    supersplat: antialiased with a smaller pixel, as the page draws that the report can link to."""
    output: Path | None = None
    """Where to write; default: splat-antialiased.ply or the like beside config.yml."""

    def main(self) -> Path:
        """Fit, write, and print a table.

        Raises:
            CheckpointError: the run or its photographs cannot be read.
            DiskError: there is no room for the file.
        """
        output = self.output or self.load_config.parent / f"splat-{self.viewer}.ply"
        if output.suffix != ".ply":
            raise CloseupError(f"--output '{output}' is no .ply, the one kind of file that is written: name it so")
        run = self._load()
        pictures, truth, rows, compared = _of_photographs(run) if isinstance(run, LoadedRun) else _of_renders(run)
        model, target = run.model, run.target
        splats, background = Splats.of(model), model.evaluation_background().to(model.device)
        generator = torch.Generator().manual_seed(run.config.seed)
        with atomic_path(output) as file:
            write_ply(splats, file, self.viewer)  # so that a place that takes no file says so before the work
            fitted = fit(splats, background, pictures, self.viewer, generator)
            count = write_ply(fitted, file, self.viewer)
        for name, some in (("exported as it was", splats), ("exported, fitted", fitted)):
            rows[name] = {scale: likeness(some, background, self.viewer, pairs) for scale, pairs in truth.items()}
        _print(rows, f"PSNR in dB on {compared}, drawn as {self.viewer} viewers do")
        print(f"{output}: {count} Gaussians")
        if self.viewer == "supersplat":
            start, _ = choose_start(run.train_views, run.train_names, None, target.point, model.render_view)
            write_json(output.with_suffix(".json"), page_settings(start, target.point, background))
            print(f"To see it in a browser, at the target:\n{page_command(output)}")
        return output

    def _load(self) -> LoadedRun | ModelAlone:
        try:
            return load_run(self.load_config, data=self.data)
        except PhotographsGone:
            if self.data is not None:
                raise
        print("the photographs of this run are not on disk: fitted to its own renders alone")
        return load_alone(self.load_config)


_Lessons = tuple[
    list[list[Callable[[], EvalPhotograph]]], dict[str, list[EvalPhotograph]], dict[str, dict[str, float | None]], str
]
"""What to learn, `fit`'s groups; by scale, what to compare with; what the run itself scores there; what that is."""


def _of_photographs(run: LoadedRun) -> _Lessons:
    seen, model, target = run.pipeline.as_run(), run.model, run.target
    step = run.config.schedule.zoom
    crops = {step**number: held_out_crops(seen, number, target.point) for number in held_out_rounds(seen)}
    truth = {"far": list(run.pipeline.datamanager.eval_photographs())}
    truth |= {scale_label(zoom): [(c.view, c.image, c.counted) for c in found] for zoom, found in crops.items()}
    own = {"far": mean_of_numbers(psnr(model.render_view(v).color, image, m) for v, image, m in truth["far"])}
    own |= {scale_label(zoom): mean_psnr(seen, found) for zoom, found in crops.items()}
    pictures = pictures_to_learn(seen, NativeStore(run.folder / "rounds"), target.point)
    return pictures, truth, {"the run's own pixel": own}, "held-out photographs and their originals"


def _of_renders(run: ModelAlone) -> _Lessons:
    pictures = renders_to_learn(run.model, run.train_views, run.target.point, run.config.schedule)
    scales = ["far", *(scale_label(run.config.schedule.zoom**number) for number in range(1, len(pictures)))]
    truth = {scale: [make() for make in group[::COMPARED]] for scale, group in zip(scales, pictures)}
    return pictures, truth, {}, "the run's own renders, some of those that it was fitted to"


def _print(rows: Mapping[str, Mapping[str, float | None]], title: str) -> None:
    scales = list(next(iter(rows.values())))
    table = Table("", *scales, title=title)
    for name, scores in rows.items():
        found = [scores[scale] for scale in scales]
        table.add_row(name, *("-" if value is None or value != value else f"{value:.2f}" for value in found))
    Console().print(table)
