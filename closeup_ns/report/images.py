"""Pictures as data URIs, so that the page needs nothing beside itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from closeup_ns.data.images import open_image
from closeup_ns.errors import DataError

QUALITY = 85
MARK = (214, 40, 140)
"""What covers pixels that no photograph gave, as stripes."""


@dataclass(frozen=True)
class Embedded:
    """A picture in the page."""

    uri: str
    width: int
    height: int
    """Pixels of the embedded picture."""
    problem: str = ""
    """Why there is none."""


def embed(path: Path, width: int, height: int = 10**6) -> Embedded:
    """``path`` as a JPEG of at most so many pixels; contact sheets are as long as they are."""
    try:
        with open_image(path) as opened:
            picture = opened.convert("RGB")
    except DataError as problem:
        return Embedded("", 0, 0, str(problem))
    picture.thumbnail((width, height), Image.Resampling.LANCZOS)
    return _embedded(picture, "JPEG", quality=QUALITY, subsampling=0, optimize=True)


def embed_mark(path: Path, long_side: int) -> Embedded | None:
    """Stripes over the pixels where the mask at ``path`` is black, transparent elsewhere; None without a readable one.

    What is wrong with the file is said where the run is read.
    """
    try:
        with open_image(path) as opened:
            mask = opened.convert("L")
    except DataError:
        return None
    mask.thumbnail((long_side, long_side), Image.Resampling.NEAREST)
    covered = np.asarray(mask) < 128
    rows, columns = np.indices(covered.shape)
    levels = np.where(covered, np.where((rows + columns) % 8 < 4, 200, 90), 0).astype(np.uint8)
    picture = np.empty((*covered.shape, 4), np.uint8)
    picture[..., :3], picture[..., 3] = MARK, levels
    return _embedded(Image.fromarray(picture), "PNG", optimize=True)


def _embedded(picture: Image.Image, kind: str, **options: int | bool) -> Embedded:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Embedded(f"data:image/{kind.lower()};base64,{text}", picture.width, picture.height)
