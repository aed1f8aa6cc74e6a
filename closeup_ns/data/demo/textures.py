"""What the surfaces of the demo scene show: photographs that scikit-image ships, and printed sheets drawn here.

A texture is uint8 [H, W, 3], sRGB, row 0 at the top. Sizes on the printed sheets are in millimetres of the scene, one
scene unit being one metre. Nothing is downloaded: only photographs inside the scikit-image wheel are used.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from closeup_ns.errors import DataError

Texture = NDArray[np.uint8]

SHEET_MM = (240, 320)
"""Width and height of the printed sheet."""
LABEL_MM = (60, 45)
"""Width and height of the label that is stuck onto the sheet: the target of the close-ups."""
SHEET_DOTS_PER_MM = 10
LABEL_DOTS_PER_MM = 40

_PAPER = (244, 239, 226)
_INK = (28, 30, 44)
_RED = (176, 42, 38)
_PROSE = (
    "From across the room this sheet is grey. Three steps on, the grey falls apart into lines, and the lines into "
    "words. Come nearer still and each letter has an edge, each edge a shade, and the paper below it a grain. "
    "What was not recorded from afar cannot be told from afar; what was recorded many times, a little shifted, can. "
)


def photograph(name: str) -> Texture:
    """A photograph from the scikit-image wheel, by file name ("astronaut.png")."""
    path = Path(skimage.data.__file__).parent / name
    if not path.is_file():
        raise DataError(
            f"this scikit-image does not ship {name} ({path}); install the locked version: "
            "pip install -r requirements.lock"
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def tinted(photo: Texture, tint: tuple[float, float, float]) -> Texture:
    """A grey photograph printed in one colour: each channel scaled by ``tint`` (fractions of white)."""
    return np.clip(photo.astype(np.float32) * np.asarray(tint, np.float32), 0, 255).astype(np.uint8)


def wood(width: int, height: int, planks: int, rng: np.random.Generator) -> Texture:
    """A table top of horizontal planks: streaks along the grain at three scales, each plank with a shade of its own."""
    grain = np.zeros((height, width), np.float32)
    for along, across, strength in ((80.0, 6.0, 1.0), (34.0, 2.0, 0.9), (9.0, 0.7, 0.8)):
        noise = gaussian_filter(rng.standard_normal((height, width), np.float32), (across, along))
        grain += strength * noise / noise.std()
    plank = np.arange(height) * planks // height
    shade = rng.uniform(0.8, 1.1, planks)[plank][:, None]
    gap = np.where(np.abs((np.arange(height) * planks / height + 0.5) % 1 - 0.5) < 0.02, 0.45, 1.0)[:, None]
    value = (0.62 + 0.07 * grain) * shade * gap
    colour = np.asarray([0.86, 0.62, 0.42], np.float32)
    return (np.clip(value[..., None] * colour, 0, 1) * 255).astype(np.uint8)


def cloth(colour: tuple[int, int, int], width: int, height: int, rng: np.random.Generator) -> Texture:
    """Book cloth: one colour with a woven grain."""
    weave = gaussian_filter(rng.standard_normal((height, width), np.float32), (0.6, 2.0))
    weave += gaussian_filter(rng.standard_normal((height, width), np.float32), (2.0, 0.6))
    value = 1 + 0.12 * weave / weave.std()
    return np.clip(value[..., None] * np.asarray(colour, np.float32), 0, 255).astype(np.uint8)


def banded(colour: tuple[int, int, int], tip: tuple[int, int, int]) -> Texture:
    """A pencil: painted shaft with thin rings, and a tip of another colour at the top."""
    texture = np.empty((256, 64, 3), np.uint8)
    texture[:] = colour
    texture[:, ::16] = np.asarray(colour) // 2
    texture[85:89] = texture[128:136] = 235
    texture[:25] = tip
    return texture


def leaf(width: int, height: int, rng: np.random.Generator) -> Texture:
    """A leaf: mottled green with a pale midrib and side veins."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    mottle = gaussian_filter(rng.standard_normal((height, width), np.float32), 3)
    green = 0.42 + 0.06 * mottle / mottle.std()
    diagonal = (x / x.max() - y / y.max()) * 0.7
    green = green + 0.25 * (np.abs(diagonal) < 0.02) + 0.12 * (np.abs((x + y) * 9 % 1 - 0.5) < 0.06)
    return (np.clip(np.stack([green * 0.55, green, green * 0.32], -1), 0, 1) * 255).astype(np.uint8)


class _Print:
    """A drawing surface measured in millimetres."""

    def __init__(self, size_mm: tuple[int, int], dots_per_mm: int, paper: tuple[int, int, int]) -> None:
        self.dots = dots_per_mm
        self.image = Image.new("RGB", (size_mm[0] * dots_per_mm, size_mm[1] * dots_per_mm), paper)
        self.draw = ImageDraw.Draw(self.image)

    def box(self, x: float, y: float, w: float, h: float, fill: tuple[int, int, int]) -> None:
        d = self.dots
        self.draw.rectangle((round(x * d), round(y * d), round((x + w) * d) - 1, round((y + h) * d) - 1), fill=fill)

    def frame(self, x: float, y: float, w: float, h: float, line: float, ink: tuple[int, int, int] = _INK) -> None:
        for bar in ((x, y, w, line), (x, y + h - line, w, line), (x, y, line, h), (x + w - line, y, line, h)):
            self.box(*bar, fill=ink)

    def text(
        self, x: float, y: float, size: float, text: str, ink: tuple[int, int, int] = _INK, face: str = "DejaVuSerif"
    ) -> None:
        self.draw.text((x * self.dots, y * self.dots), text, font=_font(face, size * self.dots), fill=ink)

    def paragraph(self, x: float, y: float, width: float, height: float, size: float) -> None:
        """Fill a column with prose of one size (millimetres between baselines: 1.35 times the size)."""
        font = _font("DejaVuSerif", size * self.dots)
        words, line, bottom = itertools.cycle(_PROSE.split()), "", y + height
        while y + 1.35 * size <= bottom:
            word = next(words)
            longer = f"{line} {word}".strip()
            if font.getlength(longer) > width * self.dots:
                self.draw.text((x * self.dots, y * self.dots), line, font=font, fill=_INK)
                y, longer = y + 1.35 * size, word
            line = longer

    def photo(self, photo: Texture, x: float, y: float, w: float, h: float) -> None:
        size = (round(w * self.dots), round(h * self.dots))
        corner = (round(x * self.dots), round(y * self.dots))
        self.image.paste(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC), corner)

    def ruler(self, x: float, y: float, length: float, step: float, tick: float) -> None:
        """Ticks every ``step`` mm, longer at every fifth, longest at every tenth."""
        for i in range(int(length / step) + 1):
            longer = 1.0 if i % 10 == 0 else 0.7 if i % 5 == 0 else 0.45
            self.box(x + i * step, y, 0.18 * step, tick * longer, _INK)

    def line_pairs(self, x: float, y: float, height: float, period: float, pairs: int) -> float:
        for i in range(pairs):
            self.box(x + i * period, y, period / 2, height, _INK)
        return x + pairs * period


def _font(face: str, size: float) -> ImageFont.FreeTypeFont:
    # matplotlib ships the DejaVu faces, so the sheets look the same on every machine.
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf", size)


def printed_sheet() -> Texture:
    """The sheet on the easel: from a headline that far photos resolve down to print of 1 mm, at 10 dots per mm."""
    page = _Print(SHEET_MM, SHEET_DOTS_PER_MM, _PAPER)
    page.frame(6, 6, 228, 308, 1.6, _RED)
    page.frame(9, 9, 222, 302, 0.5)
    page.text(16, 8, 34, "NEARER", _RED, "DejaVuSerif-Bold")
    page.text(17, 47, 9.5, "a sheet to come closer to", face="DejaVuSerif-Italic")
    page.box(16, 61, 208, 1.2, _INK)
    page.paragraph(16, 64, 100, 58, 5)
    page.paragraph(124, 64, 98, 58, 3.2)
    page.paragraph(16, 126, 68, 68, 2.2)
    page.paragraph(158, 126, 64, 68, 1.5)
    page.box(88, 129, LABEL_MM[0] + 4, LABEL_MM[1] + 14, (206, 214, 208))
    page.text(92, 133.5 + LABEL_MM[1], 5.5, "No. 27  SPECIMEN", _RED, "DejaVuSans-Bold")
    page.photo(photograph("coffee.png"), 16, 200, 108, 72)
    page.paragraph(130, 200, 92, 36, 1.0)
    x = 130.0
    for period, pairs in ((6.0, 3), (4.0, 4), (2.5, 5), (1.5, 7), (1.0, 8), (0.6, 10), (0.4, 10)):
        x = page.line_pairs(x, 240, 16, period, pairs) + 2.0
    swatches = ((200, 40, 40), (230, 150, 30), (240, 215, 60), (60, 150, 70), (40, 90, 180), (120, 60, 140))
    for i, colour in enumerate(swatches):
        page.box(130 + i * 15.3, 259, 15.3, 13, colour)
    page.ruler(16, 278, 200, 1.0, 8)
    for i in range(0, 21, 2):
        page.text(15 + i * 10, 287, 5, str(i), face="DejaVuSans")
    page.text(16, 297, 7, "3 x   9 x   27 x", _RED, "DejaVuSans-Bold")
    page.paragraph(80, 298, 140, 10, 2.2)
    return np.asarray(page.image)


def printed_label() -> Texture:
    """The label in the middle of the sheet: a portrait, rulings and print from 5 mm down to 0.4 mm, 40 dots per mm."""
    label = _Print(LABEL_MM, LABEL_DOTS_PER_MM, (236, 228, 200))
    d, (right, bottom) = LABEL_DOTS_PER_MM, (LABEL_MM[0] - 0.6, LABEL_MM[1] - 0.6)
    for along in np.arange(0.4, 60, 2.0):
        for x, y in ((along, -0.6), (along, bottom), (-0.6, along), (right, along)):
            label.draw.ellipse((x * d, y * d, (x + 1.2) * d, (y + 1.2) * d), fill=(150, 158, 150))
    label.frame(1.8, 1.8, 56.4, 41.4, 0.35, (30, 70, 60))
    micro = "three times nearer, nine times nearer, twenty-seven times nearer; " * 3
    for y in (2.5, 41.6):
        label.text(2.6, y, 0.62, micro[:140], (30, 70, 60))
    cat = photograph("chelsea.png")[20:270, 70:350]
    label.photo(cat, 3.2, 4.0, 31.4, 28.0)
    label.frame(3.2, 4.0, 31.4, 28.0, 0.2)
    label.text(3.0, 33.0, 5.6, "CLOSE-UP", _RED, "DejaVuSans-Bold")
    y = 4.0
    for size, text in (
        (4.6, "Chelsea"),
        (3.0, "a cat, 1 : 1"),
        (2.0, "look me in the eye"),
        (1.3, "whiskers of a tenth of a mm"),
    ):
        label.text(35.8, y - 0.2 * size, size, text, face="DejaVuSerif-Bold")
        y += 1.3 * size
    for size, width, height in ((1.0, 21.4, 4.2), (0.7, 11.0, 5.0), (0.5, 11.0, 4.2), (0.4, 11.0, 2.2)):
        label.paragraph(35.8, y, width, height, size)
        y += height + 0.4
    label.ruler(35.8, 40.6 - 1.4, 21.0, 0.5, 1.8)
    x = 35.8
    for period, pairs in ((1.6, 3), (1.0, 4), (0.6, 6), (0.4, 7), (0.25, 9), (0.16, 10)):
        x = label.line_pairs(x, 35.4, 3.0, period, pairs) + 0.5
    _rosette(label, 52.6, 29.2, 4.9)
    return np.asarray(label.image)


def _rosette(label: _Print, x: float, y: float, radius: float) -> None:
    """A guilloche, as on bank notes: fine closed curves that cross at every angle."""
    turn = np.linspace(0, 2 * np.pi, 1500)
    for k, ink in enumerate(((30, 70, 60), (176, 42, 38), (40, 60, 140))):
        for phase in np.linspace(0, 2 * np.pi / 8, 5, endpoint=False):
            r = radius * (0.72 - 0.2 * k + 0.26 * np.sin(8 * (turn + phase)))
            points = np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], 1) * label.dots
            label.draw.line([(float(a), float(b)) for a, b in points], fill=ink, width=4)
