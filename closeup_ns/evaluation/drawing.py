"""Pictures side by side with text above and below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from closeup_ns.views.view import View

Picture = NDArray[np.uint8]
"""[H, W, 3], sRGB."""
GAP, BAR = 6, 26
"""Pixels between panels, and of a line of text."""
BACKGROUND, WRITING = (24, 24, 27), (240, 240, 240)


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture with its title."""

    title: str
    picture: Picture | None
    """None leaves the place empty."""
    below: str = ""


def panel_grid(rows: Sequence[Sequence[Panel]], size: tuple[int, int]) -> Image.Image:
    """Panels in rows, each picture resized to ``size`` (width, height). A line below is kept only where one is used."""
    columns = max(len(row) for row in rows)
    below = BAR if any(panel.below for row in rows for panel in row) else 0
    pitch = (size[0] + GAP, size[1] + BAR + below + GAP)
    canvas = Image.new("RGB", (columns * pitch[0] + GAP, len(rows) * pitch[1] + GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            x, y = panel_corner(r, c, size, bool(below))
            draw.text((x + 2, y - BAR + 3), panel.title, font=fitting_font(panel.title, size[0]), fill=WRITING)
            if panel.picture is not None:
                image = Image.fromarray(panel.picture)
                canvas.paste(image if image.size == size else image.resize(size, Image.Resampling.LANCZOS), (x, y))
            if panel.below:
                font = fitting_font(panel.below, size[0])
                draw.text((x + 2, y + size[1] + 3), panel.below, font=font, fill=WRITING)
    return canvas


def panel_corner(row: int, column: int, size: tuple[int, int], below: bool) -> tuple[int, int]:
    """Where the upper left pixel of a panel's picture is in `panel_grid`."""
    height = size[1] + BAR + (BAR if below else 0) + GAP
    return GAP + column * (size[0] + GAP), GAP + row * height + BAR


def fitting_font(text: str, width: int) -> ImageFont.FreeTypeFont:
    """A font, smaller where ``text`` would not fit into ``width`` pixels otherwise."""
    font = load_font(15)
    while font.getlength(text) > width and font.size > 8:
        font = load_font(font.size - 1)
    return font


def load_font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings, so that pictures look the same everywhere."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def outline(far: View, close: View, target: torch.Tensor) -> np.ndarray:
    """Where the corners of ``close``'s image lie in ``far``, [4, 2] pixels.

    The scene around ``target`` [3] is taken for a plane that faces ``close``. All in one world frame.
    """
    w, h = close.width, close.height
    pixels = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=close.c2w.dtype)
    local = torch.cat([(pixels - close.K[:2, 2]) / close.K.diagonal()[:2], torch.ones(4, 1, dtype=close.c2w.dtype)], 1)
    depth = (target - close.position) @ close.forward
    corners = close.position + depth * (local @ close.c2w[:3, :3].T)
    seen = (corners - far.position) @ far.c2w[:3, :3]
    return (seen[:, :2] / seen[:, 2:] * far.K.diagonal()[:2] + far.K[:2, 2]).numpy()
