"""How much fine detail a render has, frequency by frequency, compared with the photograph of the same camera."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BANDS = 16
"""Rings of the spectrum, of equal width, from 0 to 0.5 cycles per pixel."""
FINE = (0.125, 0.375)
"""Cycles per pixel that the one-number summary looks at: above what every blur keeps, below where noise rules."""
_LUMA = (0.299, 0.587, 0.114)
_FLOOR = 1e-12
"""Added to powers: a flat image has none."""


def radial_power_spectrum(image: Float[Tensor, "H W 3"]) -> Float[Tensor, "B"]:
    """Mean squared amplitude of the luma's spectrum in each of `BANDS` rings.

    A Hann window hides the image's borders, whose jump would otherwise pass as detail.
    """
    height, width = image.shape[:2]
    luma = image.double() @ torch.tensor(_LUMA, dtype=torch.float64, device=image.device)
    window = _hann(height, image.device)[:, None] * _hann(width, image.device)
    luma = (luma - (luma * window).sum() / window.sum()) * window
    power = torch.fft.fft2(luma).abs().square() / window.square().sum()
    rows = torch.fft.fftfreq(height, dtype=torch.float64, device=image.device)
    columns = torch.fft.fftfreq(width, dtype=torch.float64, device=image.device)
    radius = torch.hypot(rows[:, None], columns[None, :])
    ring = (radius * (2 * BANDS)).long()
    kept = ring < BANDS  # the corners of the spectrum lie beyond 0.5 in every direction
    counts = torch.bincount(ring[kept], minlength=BANDS).clamp(min=1)
    sums = torch.bincount(ring[kept], weights=power[kept], minlength=BANDS)
    return sums / counts


def relative_sharpness(image: Float[Tensor, "H W 3"], truth: Float[Tensor, "H W 3"]) -> float:
    """Amplitude of fine detail as a share of the photograph's: the mean over `FINE` of sqrt(power / power of truth).

    1 is as sharp as the photograph, 0.2 is mush. Above 1 is noise or aliasing, so it is read beside PSNR.
    """
    centres = (torch.arange(BANDS, dtype=torch.float64, device=image.device) + 0.5) / (2 * BANDS)
    fine = (centres >= FINE[0]) & (centres <= FINE[1])
    own, real = radial_power_spectrum(image)[fine], radial_power_spectrum(truth)[fine]
    return float(((own + _FLOOR) / (real + _FLOOR)).sqrt().mean())


def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size + 2, periodic=False, dtype=torch.float64, device=device)[1:-1]
