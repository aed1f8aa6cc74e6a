"""The schedule against its formulas, written once more in float64, and what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d.schedule import (
    make_scheduler,
    timesteps,
    visual_level,
    visual_weight,
)
from tests.refine.see3d.tiny import SCHEDULER, seeded, zero_snr_alphas


def test_the_published_numbers_of_evaluations() -> None:
    base, fine = timesteps(50), timesteps(30)
    assert (len(base), base[:2], base[-2:]) == (53, [999, 980], [30, 11])
    assert (len(fine), fine[:2], fine[-1]) == (31, [999, 966], 9)


@given(st.integers(1, 998))
def test_timesteps_fall_evenly_within_the_training_range(steps: int) -> None:
    trailing = timesteps(steps)
    assert trailing[0] == 999 and trailing[-1] >= 1 and len(trailing) >= steps
    assert {a - b for a, b in itertools.pairwise(trailing)} <= {999 // steps}
    assert trailing[-1] <= 999 // steps  # no further one would have fitted
    leading = timesteps(steps, spacing="leading")
    assert len(leading) == steps and leading[-1] == 1 and leading[0] <= 999


def test_leading_is_diffusers_own_list() -> None:
    scheduler = make_scheduler({**SCHEDULER, "timestep_scaling": "leading"})
    assert scheduler.config["timestep_spacing"] == "leading"
    for steps in (1, 7, 30, 50, 999):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == timesteps(steps, spacing="leading")


@pytest.mark.parametrize(
    ("timestep", "level", "weight"),
    [(999, 199, 0.9986), (600, 120, 0.886), (315, 63, 0.804), (258, 51, 0.407), (201, 40, 0.179), (106, 21, 0.043)],
)
def test_the_weight_of_the_warp_has_the_tabled_values(timestep: int, level: int, weight: float) -> None:
    assert visual_level(timestep) == level
    assert visual_weight(timestep) == pytest.approx(weight, abs=6e-4)


@given(st.integers(0, 999))
def test_the_weight_follows_its_formula(timestep: int) -> None:
    level = math.floor(timestep / 5)
    above = 1.0 - (200 - level) / 700
    below = 0.8 * math.e ** (-3 * (60 - level) / 40)
    assert visual_weight(timestep) == pytest.approx(above if timestep >= 300 else below, rel=1e-12)
    assert 0 <= visual_weight(timestep) <= 1
    assert visual_weight(max(timestep - 1, 0)) <= visual_weight(timestep)


def test_alphas_have_zero_terminal_snr_whatever_the_json_says() -> None:
    for told in (True, False):
        alphas = make_scheduler({**SCHEDULER, "rescale_betas_zero_snr": told}).alphas_cumprod
        assert alphas[999] == 0
        np.testing.assert_allclose(alphas.double().numpy(), zero_snr_alphas(), rtol=2e-4, atol=1e-7)
    roots = {level: zero_snr_alphas()[level] ** 0.5 for level in (199, 120, 63, 51, 40, 21)}
    tabled = {199: 0.860, 120: 0.927, 63: 0.966, 51: 0.973, 40: 0.979, 21: 0.990}
    assert roots == pytest.approx(tabled, abs=6e-4)


@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize(("timestep", "earlier"), [(999, 979), (521, 501), (11, -9)])
def test_a_step_is_ddims(kind: str, to_one: bool, timestep: int, earlier: int) -> None:
    """x_prev = sqrt(a_prev) x0 + sqrt(1 - a_prev) eps (DDIM, Eq. 12, no noise), the stride being 1000 // 50."""
    scheduler = make_scheduler({**SCHEDULER, "prediction_type": kind, "set_alpha_to_one": to_one})
    scheduler.set_timesteps(50)
    sample, told = (torch.randn(64, generator=seeded(i)) * 5 for i in range(2))
    alphas = zero_snr_alphas()
    now, then = alphas[timestep], alphas[earlier] if earlier >= 0 else 1.0 if to_one else alphas[0]
    x, v = sample.double().numpy(), told.double().numpy()
    if kind == "sample":
        clean, noise = v, (x - now**0.5 * v) / (1 - now) ** 0.5
    else:
        clean, noise = now**0.5 * x - (1 - now) ** 0.5 * v, now**0.5 * v + (1 - now) ** 0.5 * x
    expected = then**0.5 * clean + (1 - then) ** 0.5 * noise
    result = scheduler.step(told, timestep, sample, return_dict=False)[0]
    np.testing.assert_allclose(result.double().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_spacing_is_see3ds_own_key() -> None:
    spacings = [
        make_scheduler({"prediction_type": "sample", **told}).config["timestep_spacing"]
        for told in ({}, {"timestep_spacing": "leading"}, {"timestep_scaling": "leading"})
    ]
    assert spacings == ["trailing", "trailing", "leading"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "epsilon"), ("prediction_type", "flow"), ("num_train_timesteps", 500),
        ("timestep_scaling", "linspace"), ("prediction_type", None),
    ],
)  # fmt: skip
def test_what_diverges_or_is_unknown_is_refused(key: str, value: Any) -> None:
    """None: the key is missing, which is diffusers' default, epsilon."""
    config = {name: each for name, each in {**SCHEDULER, key: value}.items() if each is not None}
    value = value or "epsilon"
    with pytest.raises(RefinerError) as caught:
        make_scheduler(config)
    assert all(part in str(caught.value) for part in ("scheduler_config.json", key, repr(value)))
