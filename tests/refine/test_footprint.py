"""What photographs say about a close-up: blurred to their footprint, compared there, and taken back at that scale."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine.judging.footprint import PHOTOGRAPH_VARIANCE, as_photographed, blur_variance, consistent, spread

SIZE = (60, 72)


def detailed(seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """[3, H, W] with content at every scale."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, max(size[0] // n, 2), max(size[1] // n, 2), generator=generator) for n in (20, 6, 1)]
    return torch.stack([F.interpolate(layer, size, mode="bicubic")[0] for layer in layers]).mean(0).clamp(0, 1)


def spread_of(point: Tensor) -> tuple[float, float]:
    """Sum and variance per axis of a blurred point [1, H, W]."""
    total = float(point.sum())
    rows = torch.arange(point.shape[-2], dtype=point.dtype)
    weights = point[0].sum(1) / total
    middle = (weights * rows).sum()
    return total, float((weights * (rows - middle).square()).sum())


@settings(max_examples=30, deadline=None)
@given(st.floats(1.0, 20.0))
def test_a_point_is_blurred_by_exactly_the_variance_of_its_footprint(footprint: float) -> None:
    size = (201, 201)
    point = torch.zeros(1, *size, dtype=torch.float64)
    point[0, 100, 100] = 1
    seen = as_photographed(point, torch.full(size, footprint, dtype=torch.float64))
    total, variance = spread_of(seen)
    expected = PHOTOGRAPH_VARIANCE * (footprint**2 - 1)
    assert total == pytest.approx(1, abs=1e-6)
    # A sampled Gaussian far narrower than a pixel has less variance than its continuous one, and tails end at 3 sigma.
    assert variance == pytest.approx(expected, rel=0.06, abs=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(1.0, 40.0))
def test_a_flat_picture_stays_flat_whatever_the_footprints(seed: int, most: float) -> None:
    """The shares of the Gaussians add up to one in every pixel."""
    footprint = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) * most
    flat = torch.full((3, *SIZE), 0.37)
    assert torch.allclose(as_photographed(flat, footprint), flat, atol=1e-5)
    everywhere = torch.ones(SIZE, dtype=torch.bool)
    assert torch.allclose(spread(flat, everywhere, footprint), flat, atol=1e-5)


def test_each_pixel_has_its_own_blur() -> None:
    """Against one constant footprint after the other."""
    image, footprint = detailed(), torch.linspace(0.5, 12, SIZE[0])[:, None].expand(SIZE).contiguous()
    seen = as_photographed(image, footprint)
    for row in (0, 7, 30, 59):
        alone = as_photographed(image, torch.full(SIZE, float(footprint[row, 0])))
        # Other footprints elsewhere bring other Gaussians to mix from only at the ends of the ladder.
        assert torch.allclose(seen[:, row], alone[:, row], atol=1e-6)


def test_at_a_footprint_of_one_it_is_the_plain_comparison_and_the_plain_paste() -> None:
    image, color = detailed(1), detailed(2)
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(3)) < 0.4
    one = torch.ones(SIZE)
    assert torch.equal(as_photographed(image, one), image)
    pasted = torch.where(mask, color, image)
    assert torch.allclose(consistent(image, color, mask, one), pasted, atol=1e-6)


@pytest.mark.parametrize("zoom", [3, 9])
def test_colours_come_from_the_photograph_and_detail_from_the_picture(zoom: int) -> None:
    """The photograph is a box average, which the Gaussian only resembles; one real pixel in zoom x zoom lands."""
    truth = detailed(4, (90, 108))
    photograph = F.avg_pool2d(truth[None], zoom)[0]
    mask = torch.zeros(truth.shape[1:], dtype=torch.bool)
    mask[zoom // 2 :: zoom, zoom // 2 :: zoom] = True
    color = torch.zeros_like(truth)
    color[:, mask] = photograph.flatten(1)
    footprint = torch.full(mask.shape, float(zoom))
    cast = 0.1 * torch.sin(torch.linspace(0, math.pi, 108)) * torch.tensor([1.0, -1.0, 0.5])[:, None, None]
    image = truth + cast  # the truth's detail, and a colour cast that any photograph reveals
    mended = consistent(image, color, mask, footprint)
    before, after = ((picture - truth).square().mean().sqrt() for picture in (image, mended))
    assert after < 0.35 * before
    pasted = torch.where(mask, color, image)
    assert (mended - truth)[:, mask].square().mean() < 0.5 * (pasted - truth)[:, mask].square().mean()


def test_what_one_pixel_says_fades_over_its_footprint() -> None:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[30, 36] = True
    residual = torch.where(mask, 0.2, 0.0).expand(3, *SIZE).contiguous()
    found = spread(residual, mask, torch.full(SIZE, 9.0))
    sigma = math.sqrt(float(blur_variance(torch.tensor(9.0))))
    assert float(found[0, 30, 36]) == pytest.approx(0.2, rel=0.02)
    assert float(found[0, 30, 36 + 4]) == pytest.approx(0.2 * math.exp(-0.5 * (4 / sigma) ** 2), rel=0.15)
    assert float(found[0, 30, 36 + 20]) == 0.0


def test_pixels_outside_the_mask_have_no_say() -> None:
    """Their colour is 0 by convention, or anything."""
    image, color = detailed(5), detailed(6)
    mask = torch.rand(SIZE, generator=torch.Generator().manual_seed(7)) < 0.1
    footprint = torch.full(SIZE, 3.0)
    blank = torch.where(mask, color, torch.nan)
    expected = consistent(image, color * mask, mask, footprint)
    assert torch.equal(consistent(image, blank, mask, footprint), expected)
    assert torch.equal(consistent(image, color, torch.zeros_like(mask), footprint), image)
