"""The pixel: its variance in parts, averaging by blocks, blur by a Gaussian integrated over each tap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.model.kernel import PixelKernel, box_average, gaussian_blur


@given(st.floats(0.01, 2.0), st.integers(1, 4), st.one_of(st.floats(0.01, 1.0), st.just(math.inf)))
def test_the_parts_add_up(variance: float, supersample: int, eps2d: float) -> None:
    kernel = PixelKernel.of(variance, supersample, eps2d)
    assert kernel.variance == pytest.approx(variance)
    assert kernel.eps2d <= eps2d and kernel.lens_blur >= -1e-12
    assert (kernel.lens_blur > 1e-12) == (eps2d < variance * supersample**2 * (1 - 1e-9))


def test_a_widening_alone_is_gsplats() -> None:
    assert PixelKernel.of(0.3) == PixelKernel(0.3, 1, 0.0)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_blocks_are_averaged(generator: torch.Generator, factor: int) -> None:
    image = torch.rand(4 * factor, 5 * factor, 3, generator=generator)
    averaged = box_average(image, factor)
    assert averaged.shape == (4, 5, 3)
    for row in range(4):
        for column in range(5):
            block = image[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            torch.testing.assert_close(averaged[row, column], block.reshape(-1, 3).mean(0))


@pytest.mark.parametrize("variance", [0.1, 0.3, 1.0])
def test_a_point_blurs_into_a_gaussian(variance: float) -> None:
    """Each tap is the Gaussian's mass over its pixel."""
    image = torch.zeros(31, 31, 1, dtype=torch.float64)
    image[15, 15] = 1.0
    blurred = gaussian_blur(image, variance)[..., 0]
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-12)
    below = [0.5 * (1 + math.erf((edge - 0.5) / math.sqrt(2 * variance))) for edge in range(-15, 17)]
    mass = torch.tensor(below, dtype=torch.float64).diff()
    torch.testing.assert_close(blurred, mass[:, None] * mass, atol=3e-3, rtol=0)  # cut off at 3 deviations
    torch.testing.assert_close(blurred, blurred.T)


def test_flat_images_stay_flat_up_to_the_border() -> None:
    image = torch.full((9, 7, 3), 0.4)
    torch.testing.assert_close(gaussian_blur(image, 0.5), image)
    tiny = torch.full((1, 6, 3), 0.4)
    torch.testing.assert_close(gaussian_blur(tiny, 0.5), tiny)


def test_the_blur_is_differentiable(generator: torch.Generator) -> None:
    image = torch.rand(5, 6, 2, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda i: gaussian_blur(i, 0.4), (image,))


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("channels", [3, 4])
def test_gathering_keeps_what_was_rendered(generator: torch.Generator, supersample: int, channels: int) -> None:
    """Colours alone, or with depth; training renders the one and evaluation the other."""
    render = torch.rand(8 * supersample, 6 * supersample, channels, generator=generator)
    alpha = torch.rand(8 * supersample, 6 * supersample, 1, generator=generator)
    gathered, opacity = PixelKernel(0.1, supersample, 0.2).gather(render, alpha)
    assert gathered.shape == (8, 6, channels) and opacity.shape == (8, 6, 1)
    expected = gaussian_blur(box_average(render[..., :3], supersample), 0.2)
    torch.testing.assert_close(gathered[..., :3], expected)


def test_depth_is_averaged_over_what_is_opaque(generator: torch.Generator) -> None:
    render, alpha = torch.rand(2, 2, 4, generator=generator), torch.zeros(2, 2, 1)
    alpha[0, 1], alpha[1, 0] = 0.25, 0.75
    gathered, opacity = PixelKernel(0.1, 2, 0.0).gather(render, alpha)
    expected = 0.25 * render[0, 1, 3] + 0.75 * render[1, 0, 3]
    assert float(gathered[0, 0, 3]) == pytest.approx(float(expected), rel=1e-5)
    assert float(opacity) == pytest.approx(0.25)
    empty, _ = PixelKernel(0.1, 2, 0.0).gather(render, torch.zeros(2, 2, 1))
    assert float(empty[0, 0, 3]) == 0.0
