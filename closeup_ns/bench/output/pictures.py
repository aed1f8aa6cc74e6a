"""Comparison grids: photograph, truth and every method at a camera of each scale, with the same detail enlarged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from closeup_ns.bench.experiment import ExperimentResult, scene_folder
from closeup_ns.bench.output.results import Result, last_line, methods_of
from closeup_ns.bench.scenes.prepared import PreparedScene, read_scene
from closeup_ns.data.eval_cameras import EvalCamera, photographs_of
from closeup_ns.errors import CloseupError, DataError
from closeup_ns.evaluation import pictures
from closeup_ns.evaluation.drawing import BACKGROUND, BAR, GAP, Panel, Picture, outline, panel_grid
from closeup_ns.evaluation.evaluate import References, references_by_point
from closeup_ns.metrics.shot import Box, scale_label

WIDTH = 320
"""Of a panel in pixels."""
INSET_SIDE, INSET_FACTOR = 32, 4
"""Pixels of a render that the inset shows along each side, and how many times each is enlarged."""
_FRAME = (255, 196, 0)
_FRAMES = (_FRAME, (255, 110, 40), (255, 40, 90), (200, 80, 255))
"""Of the close-ups in a far photograph, nearer ones later."""
_LUMA = (0.299, 0.587, 0.114)


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
    photograph: Picture | None = None
    """The photograph that shows most of the same thing from afar."""
    region: Box | None = None
    """The part of it that this camera sees."""
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
            found.append(_look(name, scale, {m: chosen[m] for m in having[name]}, cameras.get(name), scene))
        except (CloseupError, OSError) as problem:
            problems.append(f"no picture of {name}: {last_line(str(problem))}")
    return found, problems


def comparison_grid(rows: Sequence[Look], labels: Mapping[str, str], width: int = WIDTH) -> Image.Image:
    """Rows are cameras; columns the far photograph, the truth, and each method of ``labels`` (method -> label).

    Every row's insets show the same pixels: those where its truth (or without one, the mean render) has most detail.
    A column that no row has is left out.
    """
    first = next(picture for picture in (*rows[0].renders.values(), rows[0].truth) if picture is not None)
    size = (width, round(width * first.shape[0] / first.shape[1]))
    photographs, truths = any(row.photograph is not None for row in rows), any(row.truth is not None for row in rows)
    lines = []
    for row in rows:
        crop = most_detail(_detailed(row))
        label = scale_label(row.scale)
        line = []
        if photographs:
            shown = None if row.photograph is None else _boxed(row.photograph, row.region, size)
            line.append(Panel("" if shown is None else f"training photograph, for {label}", shown))
        if truths:
            shown = None if row.truth is None else with_inset(row.truth, crop, size)
            line.append(Panel("" if shown is None else f"truth, {label}", shown))
        for method, name in labels.items():
            shown = with_inset(row.renders[method], crop, size) if method in row.renders else None
            title = f"{name}, {label}" if shown is not None else f"{name}: none"
            line.append(Panel(title, shown, row.below.get(method, "") if shown is not None else ""))
        lines.append(line)
    return panel_grid(lines, size)


def dive_picture(
    rows: Sequence[Look], labels: Mapping[str, str], scene: PreparedScene | None, width: int = WIDTH
) -> Image.Image | None:
    """One wide picture: a far photograph with a frame where each close-up looks, and beside it every method and the
    truth at each scale. None where the target or a truth is not known.
    """
    close = [row for row in rows if row.scale > 1 and row.truth is not None and row.camera is not None]
    far = [camera for camera in scene.cameras() if camera.scale == 1 and camera.truth] if scene and close else []
    if scene is None or scene.record.target_point is None or not far:
        return None
    first, target = close[0].camera, torch.tensor(scene.record.target_point, dtype=torch.float64)
    assert first is not None
    photograph = max(far, key=lambda camera: float(camera.view.forward @ first.view.forward))
    lines = [
        [*(Panel(name, row.renders.get(m), row.below.get(m, "")) for m, name in labels.items()),
         Panel(f"truth, {scale_label(row.scale)}", row.truth)]
        for row in close
    ]  # fmt: skip
    right = panel_grid(lines, (width, round(width * first.view.height / first.view.width)))
    assert photograph.truth is not None
    shown = Image.fromarray(pictures.read_picture(photograph.truth).numpy())
    shown = shown.resize((2 * shown.width, 2 * shown.height), Image.Resampling.BICUBIC)
    for row, color in zip(close, _FRAMES):
        assert row.camera is not None
        corners = 2 * outline(photograph.view, row.camera.view, target)
        ImageDraw.Draw(shown).polygon([(float(x), float(y)) for x, y in corners], outline=color, width=3)
    height = right.height - BAR - 2 * GAP
    size = (round(height * shown.width / shown.height), height)
    left = panel_grid([[Panel("held-out far photograph", np.asarray(shown))]], size)
    whole = Image.new("RGB", (left.width + right.width - GAP, right.height), BACKGROUND)
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width - GAP, 0))
    return whole


def most_detail(picture: Picture, side: int = INSET_SIDE) -> Box:
    """The square of ``side`` pixels (less in a smaller picture) with the largest sum of squared gradients."""
    height, width = picture.shape[:2]
    w, h = min(side, width), min(side, height)
    luma = picture.astype(np.float64) @ np.array(_LUMA)
    energy = np.square(np.diff(luma, axis=0, append=luma[-1:])) + np.square(np.diff(luma, axis=1, append=luma[:, -1:]))
    table = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = table[h:, w:] - table[:-h, w:] - table[h:, :-w] + table[:-h, :-w]
    y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(x), int(y), int(x) + w, int(y) + h


def with_inset(picture: Picture, crop: Box, size: tuple[int, int], factor: int = INSET_FACTOR) -> Picture:
    """``picture`` at ``size`` (width, height) with ``crop`` framed, and enlarged (nearest) in the corner opposite.

    The factor shrinks where the inset would take more than half of the picture.
    """
    x0, y0, x1, y1 = crop
    image = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    across, down = size[0] / picture.shape[1], size[1] / picture.shape[0]
    frame = (round(x0 * across), round(y0 * down), round(x1 * across) - 1, round(y1 * down) - 1)
    draw.rectangle(frame, outline=_FRAME, width=2)
    factor = max(1, min(factor, size[0] // (2 * (x1 - x0)), size[1] // (2 * (y1 - y0))))
    enlarged = Image.fromarray(picture[y0:y1, x0:x1]).resize(
        ((x1 - x0) * factor, (y1 - y0) * factor), Image.Resampling.NEAREST
    )
    left = 0 if frame[0] + frame[2] > size[0] else size[0] - enlarged.width
    top = 0 if frame[1] + frame[3] > size[1] else size[1] - enlarged.height
    image.paste(enlarged, (left, top))
    draw.rectangle((left, top, left + enlarged.width - 1, top + enlarged.height - 1), outline=_FRAME, width=2)
    return np.asarray(image)


def _look(
    name: str, scale: float, having: Mapping[str, Result], camera: EvalCamera | None, scene: PreparedScene | None
) -> Look:
    renders = {m: pictures.read_picture(r.experiment.renders / f"{name}.png").numpy() for m, r in having.items()}
    if not renders:
        raise DataError("no method has a render of it")
    below = {}
    for method, result in having.items():
        values = next((row.values for row in result.scores.rows if row.image == name), {}) if result.scores else {}
        if "psnr" in values:
            below[method] = f"PSNR {values['psnr']:.2f} dB"
    truth = None
    if camera is not None and camera.truth is not None and camera.truth.is_file():
        truth = pictures.read_picture(camera.truth).numpy()
    photograph, region = (None, None) if camera is None or scene is None or scale <= 1 else _photograph(camera, scene)
    return Look(name, scale, renders, below, truth, photograph, region, camera)


def _photograph(camera: EvalCamera, scene: PreparedScene) -> tuple[Picture | None, Box | None]:
    """The training photograph with most coverage, and where in it the camera looks; nothing without a target point."""
    if scene.record.target_point is None:
        return None, None
    point = torch.tensor(scene.record.target_point, dtype=torch.float64)
    known = photographs_of(scene.capture / "transforms.json")
    references: References = references_by_point([camera], known, point)
    found = references.chosen.get(camera.name)
    if found is None:
        return None, None
    return pictures.read_picture(references.files[found.index]).numpy(), found.region


def _detailed(row: Look) -> Picture:
    if row.truth is not None:
        return row.truth
    return np.mean(np.stack(list(row.renders.values())).astype(np.float64), axis=0).astype(np.uint8)


def _boxed(photograph: Picture, region: Box | None, size: tuple[int, int]) -> Picture:
    """A photograph at ``size`` with the frame of what the close-up shows, a little outside of it."""
    image = Image.fromarray(photograph).resize(size, Image.Resampling.LANCZOS)
    if region is not None:
        across, down = size[0] / photograph.shape[1], size[1] / photograph.shape[0]
        x0, y0, x1, y1 = (v * s for v, s in zip(region, (across, down, across, down)))
        ImageDraw.Draw(image).rectangle((x0 - 2, y0 - 2, x1 + 1, y1 + 1), outline=_FRAME, width=2)
    return np.asarray(image)
