"""Peak signal-to-noise ratio: the one place that computes it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor

IDENTICAL_PSNR = 100.0
"""What equal images score, dB: infinity cannot be written to JSON."""


def psnr(
    image: Float[Tensor, "H W 3"], reference: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """PSNR in dB of images in [0, 1], over ``mask`` where it is given; NaN where that is empty.

    `IDENTICAL_PSNR` at most, in float64.
    """
    error = (image.double() - reference.double()).square().mean(-1)
    if mask is not None:
        error = error[mask]
    return decibels(float(error.mean())) if error.numel() else math.nan


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]; `IDENTICAL_PSNR` at most."""
    return min(-10 * math.log10(max(error, 1e-30)), IDENTICAL_PSNR)  # in this order NaN stays NaN


def mean_of_numbers(scores: Iterable[float]) -> float:
    """Mean of the scores that are numbers; NaN of none."""
    finite = [score for score in scores if not math.isnan(score)]
    return sum(finite) / len(finite) if finite else math.nan


def mean_or_none(scores: Iterable[float]) -> float | None:
    """Mean of the scores that are numbers; None where there are none, since JSON has no NaN."""
    mean = mean_of_numbers(scores)
    return None if math.isnan(mean) else mean
