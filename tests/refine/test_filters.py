"""Filters against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine.imaging.filters import edge_distance, gaussian_blur, masked_blur, opened


def random_mask(seed: int, height: int, width: int, share: float) -> Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share


masks = st.builds(random_mask, st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))


def brute_blur(image: Tensor, sigma: float) -> Tensor:
    """Direct two-dimensional weighted mean over the pixels within reach."""
    _, height, width = image.shape
    radius = math.ceil(3 * sigma)
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for row in range(max(0, y - radius), min(height, y + radius + 1)):
                for column in range(max(0, x - radius), min(width, x + radius + 1)):
                    kernel = math.exp(-0.5 * ((column - x) ** 2 + (row - y) ** 2) / sigma**2)
                    total += kernel
                    result[:, y, x] += kernel * image[:, row, column]
            result[:, y, x] /= total
    return result


@pytest.mark.parametrize("sigma", [0.4, 1.3])
def test_blur_is_the_direct_sum(generator: torch.Generator, sigma: float) -> None:
    image = torch.rand(2, 6, 8, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(gaussian_blur(image, sigma), brute_blur(image, sigma))


def test_blur_wider_than_the_image_keeps_a_constant() -> None:
    flat = torch.full((3, 5, 4), 0.3, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(flat, 20.0), flat)


def test_no_blur_is_the_image_itself(generator: torch.Generator) -> None:
    image = torch.rand(3, 5, 4, generator=generator)
    assert torch.equal(gaussian_blur(image, 0.0), image)


@settings(max_examples=30, deadline=None)
@given(masks)
def test_masked_blur_never_reads_outside_the_mask(mask: Tensor) -> None:
    image = torch.rand(1, *mask.shape, generator=torch.Generator().manual_seed(1))
    poisoned = torch.where(mask, image, torch.full_like(image, float("nan")))
    blurred = masked_blur(poisoned, mask, 1.0)
    assert blurred.isfinite().all()
    if mask.any():
        values = image[0][mask]
        assert blurred[0][mask].min() >= values.min() - 1e-5
        assert blurred[0][mask].max() <= values.max() + 1e-5


def brute_opened(mask: Tensor) -> Tensor:
    height, width = mask.shape

    def around(grid: Tensor, y: int, x: int) -> Tensor:
        return grid[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]

    eroded = torch.tensor([[bool(around(mask, y, x).all()) for x in range(width)] for y in range(height)])
    return torch.tensor([[bool(around(eroded, y, x).any()) for x in range(width)] for y in range(height)])


@settings(max_examples=60, deadline=None)
@given(masks)
def test_opening_is_the_definition(mask: Tensor) -> None:
    assert torch.equal(opened(mask), brute_opened(mask))


@settings(max_examples=60, deadline=None)
@given(masks, st.integers(1, 5))
def test_edge_distance_is_the_nearest_unmasked_pixel(mask: Tensor, limit: int) -> None:
    unmasked = (~mask).nonzero()
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            nearest = limit
            if len(unmasked):
                nearest = int((unmasked - torch.tensor([y, x])).abs().amax(1).min())
            assert int(edge_distance(mask, limit)[y, x]) == min(nearest, limit)
