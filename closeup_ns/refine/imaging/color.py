"""Colour match of a generated picture: its own detail, the low frequencies of what it was made from.

Diffusion models shift colours; a close-up whose white balance moved would repaint the scene. The split is that of the
a-trous wavelet transform with the kernel (1, 2, 1) / 4, as upscalers use it (StableSR, SUPIR).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEVELS = 5
"""Wavelet levels that count as detail: waves shorter than 2^5 = 32 pixels stay the generated picture's."""


def low_frequencies(image: Float[Tensor, "C H W"], levels: int = LEVELS) -> Float[Tensor, "C H W"]:
    """What is left of ``image`` below ``levels`` levels of the a-trous transform.

    Smoothing by (1, 2, 1) / 4 with holes of 1, 2, 4, ... pixels is, together, one triangle of half width 2^levels: a
    wave of 2^levels pixels, or of a whole fraction of them, is gone from the result, and constants come back. Taps
    outside the image are left out and the rest is weighed anew, so that no border is darkened.
    """
    for level in range(levels):
        image = _level(image, level)
    return image


def _level(image: Tensor, level: int) -> Tensor:
    """The next coarser level of the transform."""
    for axis in (-2, -1):
        image = _smoothed(image, 2**level, axis)
    return image


def _smoothed(image: Tensor, step: int, axis: int) -> Tensor:
    """(1, 2, 1) / 4 along ``axis`` with taps ``step`` pixels apart, normalised at the borders."""
    length = image.shape[axis]
    if step >= length:
        return image
    reach = length - step
    total = 2.0 * image
    total.narrow(axis, step, reach).add_(image.narrow(axis, 0, reach))
    total.narrow(axis, 0, reach).add_(image.narrow(axis, step, reach))
    taps = image.new_full((length,), 2.0)
    taps[step:] += 1.0
    taps[:reach] += 1.0
    return total / (taps[:, None] if axis == -2 else taps)


def match_wavelet(
    image: Float[Tensor, "C H W"],
    reference: Float[Tensor, "C H W"],
    levels: int = LEVELS,
    trusted: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, "C H W"]:
    """``image`` with the low frequencies of ``reference``.

    The split is linear, so only the difference is smoothed: equal pictures come back bit for bit, and a constant shift
    of colour is taken out up to rounding.

    Args:
        image: the generated picture; NaN spreads over the filter's width, so look for it before.
        reference: what it was made from.
        levels: see ``low_frequencies``.
        trusted: where the reference's colours are believed. Elsewhere the correction of the surroundings goes on
            smoothly, so that what was invented gets the same white balance as what is known. Nothing trusted: the
            image comes back as it is.

    Returns:
        In the image's type, not clamped: the sum may leave [0, 1].
    """
    working = torch.float64 if image.dtype == torch.float64 else torch.float32
    difference = reference.to(image.device, working) - image.to(working)
    if trusted is not None and not bool(trusted.all()):
        if not bool(trusted.any()):
            return image
        difference = _extended(difference, trusted.to(image.device))
    return (image.to(working) + low_frequencies(difference, levels)).to(image.dtype)


def _extended(values: Float[Tensor, "C H W"], mask: Bool[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """``values`` on the mask; elsewhere a smooth continuation, from the average of all into what is near.

    Each scale lays its average over that of the scale above it, by the share of masked pixels that it sees. A constant
    is continued as that constant.
    """
    inside = mask.to(values.dtype)[None]
    masked = torch.where(mask, values, torch.zeros_like(values))
    scales = [torch.cat([masked, inside])]
    while 2 ** (len(scales) - 1) < max(mask.shape):
        scales.append(_level(scales[-1], len(scales) - 1))
    mean = masked.sum((1, 2)) / inside.sum()
    result = mean[:, None, None].expand_as(values)
    for scale in reversed(scales):
        result = scale[:-1] + (1.0 - scale[-1:]) * result
    return result
