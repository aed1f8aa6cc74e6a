"""The wavelet colour match against its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.refine.imaging.color import low_frequencies, match_wavelet

SIDES = st.integers(1, 70)
LEVELS = st.integers(0, 6)


def picture(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def patches(seed: int, height: int, width: int) -> torch.Tensor:
    """A mask of blocks, at least one pixel of which is True."""
    coarse = torch.rand(1, 1, 5, 4, generator=torch.Generator().manual_seed(seed)) < 0.4
    mask = torch.nn.functional.interpolate(coarse.float(), (height, width))[0, 0] > 0.5
    mask[height // 2, width // 2] = True
    return mask


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), SIDES, SIDES, LEVELS)
def test_a_picture_matched_with_itself_is_itself(seed: int, height: int, width: int, levels: int) -> None:
    image = picture(seed, height, width)
    assert torch.equal(match_wavelet(image, image.clone(), levels), image)
    assert torch.equal(match_wavelet(image, image.clone(), levels, patches(seed, height, width)), image)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), SIDES, SIDES, LEVELS)
def test_a_constant_shift_of_colour_is_removed(seed: int, height: int, width: int, levels: int) -> None:
    image = picture(seed, height, width)
    cast = image + torch.tensor([0.2, -0.1, 0.05])[:, None, None]
    torch.testing.assert_close(match_wavelet(cast, image, levels), image, atol=1e-6, rtol=0)
    trusted = patches(seed, height, width)
    torch.testing.assert_close(match_wavelet(cast, image, levels, trusted), image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("levels", "fraction"), [(1, 1), (3, 1), (3, 4), (5, 1), (5, 3), (5, 16)])
def test_detail_above_the_cut_survives_and_waves_below_it_are_replaced(levels: int, fraction: int, axis: int) -> None:
    cut = 2**levels
    side = 8 * cut
    inner = slice(cut, side - cut)
    position = torch.arange(side, dtype=torch.float64)
    detail = 0.1 * torch.sin(2 * math.pi * position * fraction / cut + 0.3)
    slow = 0.3 * torch.sin(2 * math.pi * position / (40 * cut))
    image, reference = (line.expand(3, side, side) for line in (detail, slow))
    if axis == 0:
        image, reference = image.mT, reference.mT
    matched = match_wavelet(image, reference, levels)
    # Two boxes of 2^levels pixels: at this period their product passes (sin(pi x) / ..)^2 of the slow wave.
    period = 40 * cut
    passed = (math.sin(math.pi * cut / period) / (cut * math.sin(math.pi / period))) ** 2
    expected = image + passed * reference
    torch.testing.assert_close(matched[:, inner, inner], expected[:, inner, inner], atol=1e-12, rtol=0)


def test_the_split_is_a_triangle_of_half_width_two_to_the_levels() -> None:
    levels, side = 3, 65
    spike = torch.zeros(1, side, side, dtype=torch.float64)
    spike[0, 32, 32] = 1.0
    line = (1.0 - (torch.arange(side, dtype=torch.float64) - 32).abs() / 2**levels).clamp_min(0) / 2**levels
    torch.testing.assert_close(low_frequencies(spike, levels)[0], line[:, None] * line)


def test_the_correction_goes_on_smoothly_from_two_sides() -> None:
    trusted = torch.zeros(64, 256, dtype=torch.bool)
    trusted[:, :64] = trusted[:, 192:] = True
    image = torch.zeros(1, 64, 256)
    reference = torch.full((1, 64, 256), 0.5)
    reference[..., :128] = 0.1
    reference[..., 64:192] = 9.0
    correction = match_wavelet(image, reference, trusted=trusted)[0]
    assert (correction[:, :24] - 0.1).abs().max() < 1e-3 and (correction[:, 232:] - 0.5).abs().max() < 1e-3
    assert float(correction[:, 64:192].min()) >= 0.1 and float(correction[:, 64:192].max()) <= 0.5
    assert float(correction.diff(dim=1).abs().max()) < 0.02
    assert (correction[:, 128] - 0.3).abs().max() < 0.05


def test_nothing_trusted_leaves_the_picture_alone(generator: torch.Generator) -> None:
    image, reference = torch.rand(2, 3, 20, 30, generator=generator)
    assert torch.equal(match_wavelet(image, reference, trusted=torch.zeros(20, 30, dtype=torch.bool)), image)


def test_half_precision_comes_back_in_half_precision(generator: torch.Generator) -> None:
    image = torch.rand(3, 40, 40, generator=generator).half()
    matched = match_wavelet(image, image.float() + 0.25)
    assert matched.dtype == torch.float16
    torch.testing.assert_close(matched.float(), image.float() + 0.25, atol=1e-3, rtol=0)
