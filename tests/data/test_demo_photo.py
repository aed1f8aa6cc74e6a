"""The demo's camera: its lens keeps the light, its noise has the variance that it says, its curve is sRGB."""

from __future__ import annotations

import numpy as np
import pytest

from closeup_ns.data.demo.photo import PhotoModel
from closeup_ns.data.demo.render import linear_to_srgb, srgb_to_linear


def test_the_lens_keeps_the_mean_and_spreads_a_point_by_its_sigma() -> None:
    photo = PhotoModel(lens_sigma=1.3)
    image = np.random.default_rng(0).random((40, 60, 3), np.float32)
    np.testing.assert_allclose(photo.lens(image).mean((0, 1)), image.mean((0, 1)), rtol=1e-4)
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 1
    spread = photo.lens(point)[..., 0].astype(np.float64)
    offsets = np.arange(41) - 20
    assert spread.sum() == pytest.approx(1, rel=1e-5)
    assert (spread.sum(0) * offsets**2).sum() == pytest.approx(1.3**2, rel=0.02)
    assert (spread.sum(1) * offsets**2).sum() == pytest.approx(1.3**2, rel=0.02)


@pytest.mark.parametrize("level", [0.0, 0.05, 0.8])
def test_noise_is_shot_plus_read_noise(level: float) -> None:
    photo = PhotoModel(full_well=5000, read_noise=8)
    flat = np.full((200, 300, 3), level, np.float32)
    error = photo.noise(flat, np.random.default_rng(1)).astype(np.float64) - level
    expected = level / 5000 + (8 / 5000) ** 2
    assert error.mean() == pytest.approx(0, abs=5 * np.sqrt(expected / error.size))
    assert error.var() == pytest.approx(expected, rel=0.02)


def test_gamma_is_srgb_both_ways() -> None:
    linear = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(linear)), linear, atol=2e-6)
    # Published values of IEC 61966-2-1: mid grey, and the end of the straight part.
    np.testing.assert_allclose(linear_to_srgb(np.array([0.214041, 0.0031308], np.float32)), [0.5, 0.04045], atol=1e-5)
    np.testing.assert_allclose(linear_to_srgb(np.array([-0.5, 2.0], np.float32)), [0.0, 1.0], atol=1e-6)


def test_a_flat_wall_is_photographed_at_its_exposure() -> None:
    photo = PhotoModel(exposure=2.0)
    flat = np.full((40, 48, 3), 0.1073, np.float32)
    image = photo.develop(flat)
    assert image.shape == (20, 24, 3) and image.dtype == np.uint8
    assert set(np.unique(image)) == {128}
    brighter = PhotoModel(exposure=4.0).develop(flat)
    expected = linear_to_srgb(np.array([0.4292], np.float32))[0] * 255
    np.testing.assert_allclose(brighter, expected, atol=1)
