"""Peak signal-to-noise ratio: the one place that computes it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor


def psnr(
    image: Float[Tensor, "H W 3"], reference: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"] | None = None
) -> float:
    """PSNR in dB of images in [0, 1], over ``mask`` where it is given; NaN where that is empty."""
    error = (image - reference).square().mean(-1)
    if mask is not None:
        error = error[mask]
    return -10 * math.log10(max(float(error.mean()), 1e-12)) if error.numel() else math.nan


def mean_of_numbers(scores: Iterable[float]) -> float:
    """Mean of the scores that are numbers; NaN of none."""
    finite = [score for score in scores if not math.isnan(score)]
    return sum(finite) / len(finite) if finite else math.nan
