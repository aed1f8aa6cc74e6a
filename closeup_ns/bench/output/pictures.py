"""Comparison grids: truth and every method at a camera of each scale."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from torch import Tensor

from closeup_ns.bench.experiment import ExperimentResult, scene_folder
from closeup_ns.bench.output.results import Result, last_line, methods_of
from closeup_ns.bench.scenes.prepared import PreparedScene, read_scene
from closeup_ns.data.eval_cameras import EvalCamera
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation.pictures import read_picture
from closeup_ns.metrics.shot import scale_label
from closeup_ns.views.view import View
from closeup_ns.views.warp import project, unproject

Picture = NDArray[np.uint8]
"""[H, W, 3], sRGB."""
WIDTH, BAR = 330, 50
"""Of a panel, and of the text above and below it, in pixels."""
LINE = 44
"""Characters of a title that fit above a panel."""
RESOLUTION = 100
"""Pixels per inch."""
_BACKGROUND, _WRITING = "#18181b", "#f0f0f0"
_FRAMES = ("#ffc400", "#ff6e28", "#ff285a", "#c850ff")
"""Of the close-ups in a far photograph, nearer ones later."""


@dataclass(frozen=True, eq=False)
class Look:
    """What there is to see at one camera."""

    name: str
    scale: float
    renders: Mapping[str, Picture]
    """By method."""
    below: Mapping[str, str]
    """What is printed under each method: its PSNR where it has one."""
    truth: Picture | None = None
    camera: EvalCamera | None = None


def scene_of(experiment: ExperimentResult, out: Path) -> PreparedScene | None:
    """The prepared scene of an experiment below a bench's folder; None where it is gone."""
    try:
        return read_scene(scene_folder(out, experiment.protocol, experiment.scene))
    except DataError:
        return None


def one_seed(results: Sequence[Result]) -> dict[str, Result]:
    """The finished experiment with the lowest seed of each method, in the order of the methods. Of one scene."""
    finished = [result for result in results if result.scores is not None]
    best = {r.experiment.method: r for r in sorted(finished, key=lambda r: r.experiment.seed, reverse=True)}
    return {method: best[method] for method in methods_of(finished)}


def looks(results: Sequence[Result], scene: PreparedScene | None) -> tuple[list[Look], list[str]]:
    """One camera per scale of one scene, far first: the first by name that most methods have. And what went wrong."""
    chosen = one_seed(results)
    scales = {row.image: row.scale for r in chosen.values() if r.scores for row in r.scores.rows}
    cameras, problems = {}, []
    try:
        cameras = {camera.name: camera for camera in scene.cameras()} if scene is not None else {}
    except CloseupError as problem:
        problems.append(str(problem))
    found = []
    for scale in sorted(set(scales.values())):
        having = {
            name: [method for method, result in chosen.items() if (result.experiment.renders / f"{name}.png").is_file()]
            for name in sorted(name for name, own in scales.items() if own == scale)
        }
        name = max(having, key=lambda name: len(having[name]))
        try:
            found.append(_look(name, scale, {m: chosen[m] for m in having[name]}, cameras.get(name)))
        except (CloseupError, OSError) as problem:
            problems.append(f"no picture of {name}: {last_line(str(problem))}")
    return found, problems


def comparison_grid(rows: Sequence[Look], labels: Mapping[str, str]) -> Figure:
    """Rows are cameras; columns the truth, where any row has it, and each method of ``labels`` (method -> label)."""
    truths = any(row.truth is not None for row in rows)
    figure = _figure(len(labels) + truths, len(rows), _aspect(rows[0]))
    panels = figure.subplots(len(rows), len(labels) + truths, squeeze=False)
    for row, line in zip(rows, panels):
        scale = scale_label(row.scale)
        if truths:
            _show(line[0], f"truth, {scale}", row.truth)
        for axes, (method, label) in zip(line[truths:], labels.items()):
            _show(axes, f"{label}, {scale}", row.renders.get(method), row.below.get(method, ""))
    return figure


def dive_picture(rows: Sequence[Look], labels: Mapping[str, str], scene: PreparedScene | None) -> Figure | None:
    """One wide picture: a far photograph with a frame where each close-up looks, and beside it every method and the
    truth at each scale. None where the target or a truth is not known.
    """
    close = [(row, row.camera) for row in rows if row.scale > 1 and row.truth is not None and row.camera is not None]
    far = [camera for camera in scene.cameras() if camera.scale == 1 and camera.truth] if scene and close else []
    if scene is None or scene.record.target_point is None or not far:
        return None
    first, target = close[0][1].view, torch.tensor(scene.record.target_point, dtype=torch.float64)
    photograph = max(far, key=lambda camera: float(camera.view.forward @ first.forward))
    columns = len(labels) + 1
    figure = _figure(len(close) + columns, len(close), _aspect(close[0][0]))
    halves: Any = figure.subfigures(1, 2, width_ratios=(len(close), columns))
    axes, panels = halves[0].subplots(), halves[1].subplots(len(close), columns, squeeze=False)
    assert photograph.truth is not None
    _show(axes, "held-out far photograph", read_picture(photograph.truth).numpy())
    for (_, camera), color in zip(close, _FRAMES):
        corners = outline(photograph.view, camera.view, target)
        axes.add_patch(Polygon(corners - 0.5, fill=False, edgecolor=color, linewidth=2))
    for (row, _), line in zip(close, panels):
        for place, (method, label) in zip(line, labels.items()):
            _show(place, label, row.renders.get(method), row.below.get(method, ""))
        _show(line[-1], f"truth, {scale_label(row.scale)}", row.truth)
    return figure


def outline(far: View, close: View, target: Float[Tensor, "3"]) -> NDArray[np.float64]:
    """Where the corners of ``close``'s image lie in ``far``, [4, 2] pixels.

    The scene around ``target`` is taken for a plane that faces ``close``. All in one world frame.
    """
    w, h = close.width, close.height
    pixels = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=close.c2w.dtype)
    depth = (target - close.position) @ close.forward
    return project(far, unproject(close, pixels, depth.expand(4)))[0].numpy()


def _look(name: str, scale: float, having: Mapping[str, Result], camera: EvalCamera | None) -> Look:
    renders = {m: read_picture(r.experiment.renders / f"{name}.png").numpy() for m, r in having.items()}
    if not renders:
        raise DataError("no method has a render of it")
    below = {}
    for method, result in having.items():
        values = next((row.values for row in result.scores.rows if row.image == name), {}) if result.scores else {}
        if "psnr" in values:
            below[method] = f"PSNR {values['psnr']:.2f} dB"
    truth = None
    if camera is not None and camera.truth is not None and camera.truth.is_file():
        truth = read_picture(camera.truth).numpy()
    return Look(name, scale, renders, below, truth, camera)


def _aspect(row: Look) -> float:
    """Height of its pictures as a share of their width."""
    height, width = next(iter(row.renders.values())).shape[:2]
    return height / width


def _figure(columns: int, rows: int, aspect: float) -> Figure:
    """A figure for so many panels."""
    size = columns * WIDTH / RESOLUTION, rows * (aspect * WIDTH + BAR) / RESOLUTION
    return Figure(size, dpi=RESOLUTION, facecolor=_BACKGROUND, layout="constrained")


def _show(axes: Any, title: str, picture: Picture | None, below: str = "") -> None:
    """A panel: the picture with ``title`` above and ``below`` under it. None leaves its place empty."""
    axes.set(xticks=[], yticks=[], facecolor=_BACKGROUND)
    axes.spines[:].set_visible(False)
    axes.set_title(textwrap.fill(title if picture is not None else f"{title}: none", LINE), size=8, color=_WRITING)
    axes.set_xlabel(below, size=8, color=_WRITING)
    if picture is not None:
        axes.imshow(picture)
