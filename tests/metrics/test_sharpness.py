"""The spectrum of waves of known frequency, and what a blur takes away."""

from __future__ import annotations

import math

import pytest
import torch

from closeup_ns.metrics.sharpness import BANDS, radial_power_spectrum, relative_sharpness


def wave(frequency: float, angle: float, size: tuple[int, int] = (96, 128)) -> torch.Tensor:
    """A grey sine wave of ``frequency`` cycles per pixel."""
    ys, xs = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size), indexing="ij")
    phase = 2 * math.pi * frequency * (math.cos(angle) * xs + math.sin(angle) * ys)
    return (0.5 + 0.4 * torch.sin(phase))[..., None].expand(*size, 3)


@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2])
@pytest.mark.parametrize("band", [2, 7, 13])
def test_a_wave_has_its_power_in_its_own_ring_whatever_its_direction(band: int, angle: float):
    curve = radial_power_spectrum(wave((band + 0.5) / (2 * BANDS), angle))
    assert int(curve.argmax()) == band
    assert curve[band] > 50 * curve[(band + 4) % BANDS]


def test_white_noise_is_flat_and_of_its_own_variance():
    noise = 0.1 * torch.randn(256, 256, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curve = radial_power_spectrum(noise.expand(-1, -1, 3))
    assert torch.allclose(curve[1:], torch.full((BANDS - 1,), 0.01, dtype=torch.float64), rtol=0.15)


def test_a_blur_of_known_response_is_measured():
    noise = torch.rand(3, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.conv2d(noise, torch.full((1, 1, 1, 2), 0.5))  # response |cos(pi f)| along x only
    sharp, soft = noise[:, 0, :, 1:].permute(1, 2, 0), blurred[:, 0].permute(1, 2, 0)
    assert relative_sharpness(sharp, sharp) == pytest.approx(1.0)
    angles = torch.linspace(0, math.pi, 181)
    rings = torch.linspace(0.125, 0.375, 21)
    response = torch.cos(math.pi * rings[:, None] * torch.cos(angles)).square().mean(1).sqrt().mean()
    assert relative_sharpness(soft, sharp) == pytest.approx(float(response), rel=0.03)
    assert relative_sharpness(torch.full_like(sharp, 0.5), sharp) < 1e-3
