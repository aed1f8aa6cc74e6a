"""A dive at the object of interest, every method side by side: one camera path, rendered through each method's run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.atomic import atomic_path
from closeup_ns.bench.case import PreparedCase
from closeup_ns.bench.cell import CellResult
from closeup_ns.bench.pictures import bench_folder, one_seed
from closeup_ns.bench.results import Result
from closeup_ns.errors import CloseupError
from closeup_ns.evaluation.drawing import Panel, Picture, panel_grid
from closeup_ns.evaluation.pictures import quantise
from closeup_ns.paths.dive import plan_dive
from closeup_ns.paths.options import PathOptions, PlannedPath
from closeup_ns.paths.start import choose_start
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.view import View

_PLANNERS = ("closeup-gs", "base", "plain")
"""Methods whose depth the path is planned with, best first; any other where none of them is there."""
_DEEPEST = 27.0


@dataclass(frozen=True)
class VideoOptions:
    """The defaults are what a CPU renders in a minute or two."""

    frames: int = 24
    """Number of frames."""
    long_side: int = 320
    """Pixels on the longer side of each method's picture."""
    fps: int = 8
    """Frames per second."""


class Run(Protocol):
    """What is asked of a trained run (`closeup_ns.evaluation.run.EvaluatedRun`)."""

    def render(self, view: View) -> Rendered:
        """Render a view of the capture's frame."""
        ...

    def photographs(self) -> list[tuple[View, Path]]:
        """Views and files of the training photographs."""
        ...


def write_dive_video(
    path: Path, results: Sequence[Result], case: PreparedCase, options: VideoOptions | None = None
) -> list[str]:
    """Write an mp4 of one scene: each method that was trained here, side by side, with the zoom below.

    The path is planned once, with one method's depth, from the training photograph that looks best at the target, down
    to the case's nearest scale. Runs are loaded one after the other.

    Returns:
        Warnings: methods that are not in it and why, and where the path had to give way.

    Raises:
        CloseupError: no run can be loaded, the case knows no target, no path leads there, or there is no ffmpeg.
    """
    options = options or VideoOptions()
    if case.case.target_point is None:
        raise CloseupError(f"the case of scene {case.case.scene} knows no point to dive at")
    target = torch.tensor(case.case.target_point, dtype=torch.float64)
    chosen = one_seed(results)
    planners = [method for method in _PLANNERS if method in chosen]
    order = [*planners, *(method for method in chosen if method not in planners)]
    dive: PlannedPath | None = None
    filmed: dict[str, list[Picture]] = {}
    warnings = []
    for method in order:
        try:
            run = _open(chosen[method])
        except CloseupError as problem:
            warnings.append(f"{chosen[method].cell.label} is not in the video: {problem}")
            continue
        if dive is None:
            dive = plan(run, target, max(case.case.scales, default=_DEEPEST), options)
            warnings += dive.warnings
        filmed[method] = [film(run, view) for view in dive.views]
    if dive is None:
        raise CloseupError("; ".join(warnings) or "no method was trained here")
    labels = {method: chosen[method].cell.label for method in chosen if method in filmed}
    write_video(path, side_by_side(filmed, labels, zooms(dive.views, target, dive.zoom)), options.fps)
    return warnings


def plan(run: Run, target: Float[Tensor, "3"], zoom: float, options: VideoOptions) -> PlannedPath:
    """The path, its views sized for the video (even sides, which H.264 asks for). All in the capture's frame."""

    def render(view: View) -> Rendered:
        rendered = run.render(view)
        return Rendered(rendered.color.cpu(), rendered.depth.cpu(), rendered.alpha.cpu())

    photographs = run.photographs()
    views, names = [view for view, _ in photographs], [path.name for _, path in photographs]
    start, notes = choose_start(views, names, None, target, render)
    usual = float(torch.stack([(view.position - target.to(view.position)).norm() for view in views]).median())
    dive = plan_dive(start, target, render, PathOptions(zoom=zoom, frames=options.frames), usual)
    factor = options.long_side / max(start.width, start.height)
    width, height = (max(2, round(side * factor) // 2 * 2) for side in (start.width, start.height))
    return replace(
        dive, views=[view.scaled_to(width, height) for view in dive.views], warnings=[*notes, *dive.warnings]
    )


def film(run: Run, view: View) -> Picture:
    """One frame of one method; what is not a number is black."""
    return quantise(run.render(view).color.nan_to_num(0.0)).numpy()


def zooms(views: Sequence[View], target: Float[Tensor, "3"], reached: float) -> list[float]:
    """How many times larger than in the photographs the target is in each frame; ``reached`` in the last."""
    away = [float((view.position - target.to(view.position)).norm()) for view in views]
    return [reached * away[-1] / distance for distance in away]


def side_by_side(
    filmed: Mapping[str, Sequence[Picture]], labels: Mapping[str, str], zoom: Sequence[float]
) -> Iterator[Picture]:
    """The video's frames: methods in the order of ``labels``, with their names above and the zoom below."""
    for index, times in enumerate(zoom):
        panels = [Panel(label, filmed[method][index], f"{times:.1f}x") for method, label in labels.items()]
        height, width = filmed[next(iter(labels))][index].shape[:2]
        yield np.asarray(panel_grid([panels], (width, height)))


def write_video(path: Path, frames: Iterator[Picture], fps: int) -> None:
    """Write an mp4 (H.264), whole or not at all.

    Raises:
        CloseupError: there is no ffmpeg, or it fails.
    """
    import imageio_ffmpeg

    first = next(frames)
    size = (first.shape[1], first.shape[0])
    try:
        with atomic_path(path) as temporary:
            writer = imageio_ffmpeg.write_frames(str(temporary), size, fps=fps, macro_block_size=2, quality=8)
            writer.send(None)
            try:
                writer.send(np.ascontiguousarray(first))
                for frame in frames:
                    writer.send(np.ascontiguousarray(frame))
            finally:
                writer.close()
            if temporary.stat().st_size == 0:
                raise CloseupError(f"ffmpeg wrote nothing to {path}")
    except (OSError, RuntimeError) as problem:
        raise CloseupError(f"the video {path} cannot be written: {problem}") from problem


def _open(result: Result) -> Run:
    """The cell's run. CloseupError where it has none, as a folder of renders, or it cannot be loaded."""
    from closeup_ns.evaluation.run import open_run  # nerfstudio's imports take seconds

    return open_run(config_of(result.cell, result.scores.about if result.scores else {}))


def config_of(cell: CellResult, about: Mapping[str, object]) -> Path:
    """The config.yml of a cell, which its scores name relative to the bench's folder."""
    relative = str(about.get("config") or "")
    if not relative:
        raise CloseupError("it was not trained here")
    config = (bench_folder(cell) / relative).resolve()
    if not config.is_relative_to(bench_folder(cell).resolve()):
        raise CloseupError(f"its config {relative} lies outside of the bench's folder")
    return config
