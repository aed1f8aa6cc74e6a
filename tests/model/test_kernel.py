"""The pixel: its variance in parts, averaging by blocks, blur by a Gaussian integrated over each tap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from closeup_ns.model.kernel import (
    MOST_TAPS,
    PixelKernel,
    apply_window,
    blur_reach,
    blurred_taps,
    box_average,
    gaussian_taps,
)


@given(st.floats(0.01, 2.0), st.integers(1, 4), st.one_of(st.floats(0.01, 1.0), st.just(math.inf)))
def test_the_parts_add_up(variance: float, supersample: int, eps2d: float) -> None:
    kernel = PixelKernel.of(variance, supersample, eps2d)
    assert kernel.variance == pytest.approx(variance)
    assert kernel.eps2d <= eps2d and kernel.lens_blur >= -1e-12
    assert (kernel.lens_blur > 1e-12) == (eps2d < variance * supersample**2 * (1 - 1e-9))


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
    blurred = apply_window(image, gaussian_taps(variance, blur_reach(variance, 31, 31)), 1)[..., 0]
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-12)
    below = [0.5 * (1 + math.erf((edge - 0.5) / math.sqrt(2 * variance))) for edge in range(-15, 17)]
    mass = torch.tensor(below, dtype=torch.float64).diff()
    torch.testing.assert_close(blurred, mass[:, None] * mass, atol=3e-3, rtol=0)  # cut off at 3 deviations
    torch.testing.assert_close(blurred, blurred.T)


@given(
    st.lists(st.floats(-0.2, 0.5), min_size=1, max_size=MOST_TAPS - 1),
    st.integers(1, 3),
    st.floats(0.0, 0.5),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_flat_images_stay_flat_up_to_the_border(
    tail: list[float], supersample: int, lens_blur: float, size: tuple[int, int]
) -> None:
    # A window that the image cuts off must have weight left, as every camera's has: (0, 0.5) on one pixel has none.
    assume(all(1 - 2 * sum(tail[cut:]) > 0.1 for cut in range(len(tail))))
    kernel = PixelKernel(0.1, supersample, lens_blur, (1 - 2 * sum(tail), *tail))
    height, width = size
    window = kernel.window(height, width)
    assert float(window.sum()) == pytest.approx(1) and torch.allclose(window, window.flip(0))
    image = torch.full((height * supersample, width * supersample, 3), 0.4, dtype=torch.float64)
    torch.testing.assert_close(
        apply_window(image, window, supersample), torch.full((height, width, 3), 0.4, dtype=torch.float64)
    )


def test_the_window_is_every_blur_of_the_pixel_after_the_other(generator: torch.Generator) -> None:
    """By the definition, far from the border: taps on the samples, means of blocks, a Gaussian on the pixels."""
    taps, image = (0.6, 0.25, -0.05), torch.rand(40, 44, 3, generator=generator, dtype=torch.float64)
    kernel = PixelKernel(0.1, 2, 0.3, taps)
    row = torch.tensor([-0.05, 0.25, 0.6, 0.25, -0.05], dtype=torch.float64)
    filtered = sum(row[j] * row[i] * image.roll((2 - j, 2 - i), dims=(0, 1)) for j in range(5) for i in range(5))
    blurred = apply_window(box_average(filtered, 2), gaussian_taps(0.3, 2), 1)
    ours = apply_window(image, kernel.window(20, 22), 2)
    torch.testing.assert_close(ours[4:-4, 4:-4], blurred[4:-4, 4:-4])


def test_a_kernel_survives_a_checkpoint() -> None:
    for kernel in (PixelKernel(0.125, 2, 0.25), PixelKernel(0.0, 1, 0.0, (0.5, 0.25)), PixelKernel.of(0.375)):
        assert PixelKernel.from_tensor(kernel.to_tensor()) == kernel
    assert len(PixelKernel.of(0.3).to_tensor()) == len(PixelKernel(0.1, 2, 0.0, (1.0,) * MOST_TAPS).to_tensor())


def test_a_blurred_filter_has_the_variances_sum() -> None:
    taps = blurred_taps((0.5, 0.25), 0.7)
    assert len(taps) <= MOST_TAPS and taps[0] + 2 * sum(taps[1:]) == pytest.approx(1)
    before, after = PixelKernel(0, 1, 0, (0.5, 0.25)).variance, PixelKernel(0, 1, 0, taps).variance
    assert after - before == pytest.approx(0.7 + 1 / 12, abs=0.02)  # of a Gaussian's mass over each sample
    assert PixelKernel(0.7, 1, 0.0, (0.5, 0.25)).unwidened() == PixelKernel(0.0, 1, 0.0, taps)


def test_the_window_is_differentiable(generator: torch.Generator) -> None:
    image = torch.rand(6, 8, 2, generator=generator, dtype=torch.float64).requires_grad_()
    window = PixelKernel(0.1, 2, 0.4, (0.8, 0.1)).window(3, 4)
    assert torch.autograd.gradcheck(lambda i: apply_window(i, window, 2), (image,))


@pytest.mark.parametrize("supersample", [1, 2])
@pytest.mark.parametrize("channels", [3, 4])
def test_gathering_keeps_what_was_rendered(generator: torch.Generator, supersample: int, channels: int) -> None:
    """Colours alone, or with depth; training renders the one and evaluation the other."""
    render = torch.rand(8 * supersample, 6 * supersample, channels, generator=generator)
    alpha = torch.rand(8 * supersample, 6 * supersample, 1, generator=generator)
    kernel = PixelKernel(0.1, supersample, 0.2)
    gathered, opacity = kernel.gather(render, alpha)
    assert gathered.shape == (8, 6, channels) and opacity.shape == (8, 6, 1)
    torch.testing.assert_close(gathered[..., :3], apply_window(render[..., :3], kernel.window(8, 6), supersample))


def test_depth_is_averaged_over_what_is_opaque(generator: torch.Generator) -> None:
    render, alpha = torch.rand(2, 2, 4, generator=generator), torch.zeros(2, 2, 1)
    alpha[0, 1], alpha[1, 0] = 0.25, 0.75
    gathered, opacity = PixelKernel(0.1, 2, 0.0).gather(render, alpha)
    expected = 0.25 * render[0, 1, 3] + 0.75 * render[1, 0, 3]
    assert float(gathered[0, 0, 3]) == pytest.approx(float(expected), rel=1e-5)
    assert float(opacity) == pytest.approx(0.25)
    empty, _ = PixelKernel(0.1, 2, 0.0).gather(render, torch.zeros(2, 2, 1))
    assert float(empty[0, 0, 3]) == 0.0
