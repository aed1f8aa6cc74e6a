"""The demo's pictures: every method beside the truth at each scale, and one wide picture that shows the whole dive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from closeup_ns.atomic import atomic_path
from closeup_ns.cli.demo_report import Picture, TestImage, psnr, read_picture, scale_label
from closeup_ns.evaluation.drawing import BACKGROUND, BAR, GAP, WRITING, Panel, outline, panel_grid
from closeup_ns.views.view import View

_FRAMES = {3: (255, 196, 0), 9: (255, 110, 40), 27: (255, 40, 90)}


def write_comparisons(
    tests: Sequence[TestImage], methods: Mapping[str, Path], labels: Mapping[str, str], folder: Path
) -> list[Path]:
    """One picture per scale, ``folder``/SCALE.png: the truth and each method's first image of it, with its PSNR."""
    written = []
    for scale in sorted({test.scale for test in tests}):
        test = next(test for test in tests if test.scale == scale)
        panels = [Panel("truth", test.truth), *_method_panels(test, methods, labels)]
        path = folder / f"{scale_label(scale)}.png"
        with atomic_path(path) as temporary:
            panel_grid([panels], (test.view.width, test.view.height)).save(temporary)
        written.append(path)
    return written


def write_hero(
    tests: Sequence[TestImage],
    methods: Mapping[str, Path],
    labels: Mapping[str, str],
    target: Sequence[float],
    path: Path,
    width: int = 320,
) -> None:
    """The wide picture: a far photograph with frames where each close-up looks; beside it, per scale, all methods.

    ``target`` is the point [3] that the close-ups look at, in the frame of the test views; ``width`` that of a panel.
    """
    close = [next(test for test in tests if test.scale == scale) for scale in sorted({t.scale for t in tests} - {1})]
    first = close[0]
    size = (width, round(width * first.view.height / first.view.width))
    rows = [
        [*_method_panels(test, methods, labels), Panel(f"truth, {scale_label(test.scale)}", test.truth)]
        for test in close
    ]
    right = panel_grid(rows, size)
    far = min((t for t in tests if t.scale == 1), key=lambda t: _angle(t.view, first.view))
    left = panel_grid(
        [[Panel("held-out far photograph", _framed(far, close, target))]], _fit(far, right.height - BAR - 2 * GAP)
    )
    hero = Image.new("RGB", (left.width + right.width - GAP, right.height), BACKGROUND)
    hero.paste(left, (0, 0))
    hero.paste(right, (left.width - GAP, 0))
    with atomic_path(path) as temporary:
        hero.save(temporary)


def _method_panels(test: TestImage, methods: Mapping[str, Path], labels: Mapping[str, str]) -> list[Panel]:
    panels = []
    for method, folder in methods.items():
        if (folder / f"{test.name}.png").is_file():
            picture = read_picture(folder / f"{test.name}.png")
            panels.append(Panel(f"{labels.get(method, method)}  {psnr(picture, test.truth):.2f} dB", picture))
    return panels


def _framed(far: TestImage, close: Sequence[TestImage], target: Sequence[float]) -> Picture:
    """The far photograph at twice its size with the outline of each close-up's field of view."""
    image = Image.fromarray(far.truth).resize((2 * far.view.width, 2 * far.view.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for test in close:
        corners = 2 * outline(far.view, test.view, torch.tensor(target, dtype=test.view.c2w.dtype))
        draw.polygon([(float(x), float(y)) for x, y in corners], outline=_FRAMES.get(test.scale, WRITING), width=3)
    return np.asarray(image)


def _fit(test: TestImage, height: int) -> tuple[int, int]:
    return round(height * test.view.width / test.view.height), height


def _angle(one: View, other: View) -> float:
    return float(-(one.forward @ other.forward))
