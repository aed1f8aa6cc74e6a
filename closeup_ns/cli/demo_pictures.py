"""The demo's pictures: every method beside the truth at each scale, and one wide picture that shows the whole dive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from closeup_ns.atomic import atomic_path
from closeup_ns.cli.demo_report import Picture, TestImage, psnr, read_picture, scale_label
from closeup_ns.views.view import View

_GAP, _BAR = 6, 26
_BACKGROUND, _WRITING = (24, 24, 27), (240, 240, 240)
_FRAMES = {3: (255, 196, 0), 9: (255, 110, 40), 27: (255, 40, 90)}


def write_comparisons(
    tests: Sequence[TestImage], methods: Mapping[str, Path], labels: Mapping[str, str], folder: Path
) -> list[Path]:
    """One picture per scale, ``folder``/SCALE.png: the truth and each method's first image of it, with its PSNR."""
    written = []
    for scale in sorted({test.scale for test in tests}):
        test = next(test for test in tests if test.scale == scale)
        panels = [("truth", test.truth), *_method_panels(test, methods, labels)]
        path = folder / f"{scale_label(scale)}.png"
        with atomic_path(path) as temporary:
            _grid([panels], (test.view.width, test.view.height)).save(temporary)
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
        [*_method_panels(test, methods, labels), (f"truth, {scale_label(test.scale)}", test.truth)] for test in close
    ]
    right = _grid(rows, size)
    far = min((t for t in tests if t.scale == 1), key=lambda t: _angle(t.view, first.view))
    left = _grid(
        [[("held-out far photograph", _framed(far, close, target))]], _fit(far, right.height - _BAR - 2 * _GAP)
    )
    hero = Image.new("RGB", (left.width + right.width - _GAP, right.height), _BACKGROUND)
    hero.paste(left, (0, 0))
    hero.paste(right, (left.width - _GAP, 0))
    with atomic_path(path) as temporary:
        hero.save(temporary)


def _method_panels(
    test: TestImage, methods: Mapping[str, Path], labels: Mapping[str, str]
) -> list[tuple[str, Picture]]:
    panels = []
    for method, folder in methods.items():
        if (folder / f"{test.name}.png").is_file():
            picture = read_picture(folder / f"{test.name}.png")
            panels.append((f"{labels.get(method, method)}  {psnr(picture, test.truth):.2f} dB", picture))
    return panels


def _grid(rows: Sequence[Sequence[tuple[str, Picture]]], size: tuple[int, int]) -> Image.Image:
    """Labelled panels of one size in rows."""
    columns = max(len(row) for row in rows)
    cell = (size[0] + _GAP, size[1] + _BAR + _GAP)
    canvas = Image.new("RGB", (columns * cell[0] + _GAP, len(rows) * cell[1] + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font = _font(15)
    for r, row in enumerate(rows):
        for c, (title, picture) in enumerate(row):
            x, y = _GAP + c * cell[0], _GAP + r * cell[1]
            while font.getlength(title) > size[0] and font.size > 8:
                font = _font(font.size - 1)
            draw.text((x + 2, y + 3), title, font=font, fill=_WRITING)
            canvas.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (x, y + _BAR))
    return canvas


def _framed(far: TestImage, close: Sequence[TestImage], target: Sequence[float]) -> Picture:
    """The far photograph at twice its size with the outline of each close-up's field of view."""
    image = Image.fromarray(far.truth).resize((2 * far.view.width, 2 * far.view.height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for test in close:
        corners = 2 * _outline(far.view, test.view, torch.tensor(target, dtype=test.view.c2w.dtype))
        draw.polygon([(float(x), float(y)) for x, y in corners], outline=_FRAMES.get(test.scale, _WRITING), width=3)
    return np.asarray(image)


def _outline(far: View, close: View, target: torch.Tensor) -> np.ndarray:
    """Where the corners of ``close``'s image lie in ``far``, [4, 2] pixels.

    The scene around ``target`` is taken for a plane that faces ``close``.
    """
    w, h = close.width, close.height
    pixels = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=close.c2w.dtype)
    local = torch.cat([(pixels - close.K[:2, 2]) / close.K.diagonal()[:2], torch.ones(4, 1, dtype=close.c2w.dtype)], 1)
    depth = (target - close.position) @ close.forward
    corners = close.position + depth * (local @ close.c2w[:3, :3].T)
    seen = (corners - far.position) @ far.c2w[:3, :3]
    return (seen[:, :2] / seen[:, 2:] * far.K.diagonal()[:2] + far.K[:2, 2]).numpy()


def _fit(test: TestImage, height: int) -> tuple[int, int]:
    return round(height * test.view.width / test.view.height), height


def _angle(one: View, other: View) -> float:
    return float(-(one.forward @ other.forward))


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)
