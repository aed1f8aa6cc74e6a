"""How a camera says that it exposed a photograph: EXIF's exposure time, f-number and ISO."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from closeup_ns.data.images import read_exif

EXIF_BLOCK = 0x8769
TIME, F_NUMBER, ISO = (0x829A, (1e-6, 4000.0)), (0x829D, (0.5, 128.0)), (0x8827, (1.0, 4e6))
"""EXIF's tags, and between what a camera's values are: a zero or a date as a number is none."""


def exposure_stops(path: Path) -> float | None:
    """Exposure of a JPEG as log2 of time x ISO / f-number^2; None where the file does not soundly say all three."""
    block = read_exif(path, EXIF_BLOCK)
    time, f_number, iso = (_sound(block.get(tag), limits) for tag, limits in (TIME, F_NUMBER, ISO))
    return None if time is None or f_number is None or iso is None else math.log2(time * iso / f_number**2)


def _sound(value: Any, limits: tuple[float, float]) -> float | None:
    first: Any = value[0] if isinstance(value, tuple) and value else value  # some cameras give ISO twice
    try:
        number = float(first)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if limits[0] <= number <= limits[1] else None  # false for NaN
