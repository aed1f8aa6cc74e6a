"""Exposure from colours at sparse points: known gains on photographs of a painted wall are found back."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from closeup_ns.model.drift import Drift, measure_drift
from closeup_ns.model.exposure import exposed
from closeup_ns.views.view import View, look_at
from closeup_ns.views.warp import camera_rays, pixel_grid

COUNT, WIDTH, HEIGHT = 12, 96, 72


def paint(points: Tensor) -> Tensor:
    """Colours [..., 3] between 0.25 and 0.75 at places [..., 2] of the wall z = 0."""
    phases = torch.tensor([0.0, 1.3, 2.9], dtype=points.dtype)
    return 0.5 + 0.25 * torch.sin(3 * points[..., :1] + phases) * torch.cos(2 * points[..., 1:2] - phases)


def view_at(index: int) -> View:
    angle = 2 * math.pi * index / COUNT
    position = torch.tensor([1.2 * math.cos(angle), 0.8 * math.sin(angle), 3.0], dtype=torch.float64)
    up, middle = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    K = torch.tensor([[80.0, 0, WIDTH / 2], [0, 80.0, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return look_at(position, middle, up, K, WIDTH, HEIGHT)


def photographed(view: View) -> Tensor:
    rays = camera_rays(view, pixel_grid(HEIGHT, WIDTH, dtype=torch.float64)) @ view.c2w[:3, :3].T
    return paint((view.position - rays * (view.position[2] / rays[..., 2:]))[..., :2])


def gains(seed: int, spread: float) -> Tensor:
    drawn = spread * torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn - drawn.mean(0)


def measured(
    log_gain: Tensor, hidden: float = 0.0, start: Tensor | None = None, points: int = 800, noise: float = 0.0
) -> Drift:
    """``hidden``: share of each photograph that something black, of which no point knows, covers."""
    generator = torch.Generator().manual_seed(7)
    views = [view_at(index) for index in range(COUNT)]
    images = [exposed(photographed(view), gain) for view, gain in zip(views, log_gain, strict=True)]
    for index, image in enumerate(images):
        image[:, (index * 7) % 40 : (index * 7) % 40 + round(hidden * WIDTH)] = 0.08
        image += noise * torch.randn(image.shape, generator=generator, dtype=image.dtype)
    places = torch.cat([2 * torch.rand(points, 2, generator=generator) - 1, torch.zeros(points, 1)], 1).double()
    start = torch.zeros(COUNT, 3) if start is None else start
    return measure_drift(views, images, [None] * COUNT, places, start.double(), generator)


@pytest.mark.parametrize("hidden", [0.0, 0.15])
def test_known_gains_are_found_up_to_their_mean(hidden: float) -> None:
    truth = gains(0, 0.1)
    drift = measured(truth + torch.tensor([0.05, -0.02, 0.0]), hidden)
    torch.testing.assert_close(drift.log_gain, truth, rtol=0, atol=0.01)
    assert drift.spread == pytest.approx(float(truth.square().mean().sqrt()), rel=0.1)


@pytest.mark.parametrize("hidden", [0.0, 0.15])
def test_no_drift_is_none(hidden: float) -> None:
    assert measured(torch.zeros(COUNT, 3).double(), hidden).spread < 0.01


def test_noise_is_no_drift() -> None:
    """It differs between the halves of the points."""
    drift = measured(torch.zeros(COUNT, 3).double(), points=60, noise=0.1)
    assert drift.log_gain.std() > 0.015 and drift.spread < 0.01


def test_where_no_point_tells_what_was_recorded_stands() -> None:
    recorded = gains(2, 0.1)
    drift = measured(torch.zeros(COUNT, 3).double(), start=recorded, points=0)
    torch.testing.assert_close(drift.log_gain, recorded)
    assert drift.spread == pytest.approx(float(recorded.square().mean().sqrt()))


def test_black_photographs_tell_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    views, black = [view_at(index) for index in range(COUNT)], [torch.zeros(HEIGHT, WIDTH, 3).double()] * COUNT
    points, start = torch.rand(200, 3, generator=generator).double(), torch.zeros(COUNT, 3).double()
    drift = measure_drift(views, black, [None] * COUNT, points, start, generator)
    assert drift.spread == 0 and not drift.log_gain.any()


def test_one_black_photograph_does_not_pull_at_the_others() -> None:
    truth = gains(3, 0.1)
    dark = truth.clone()
    dark[4] = -3.0
    found = measured(dark).log_gain
    others = [index for index in range(COUNT) if index != 4]
    centred = truth[others] - truth[others].mean(0)
    torch.testing.assert_close(found[others] - found[others].mean(0), centred, rtol=0, atol=0.01)
