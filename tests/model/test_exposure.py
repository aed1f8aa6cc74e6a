"""Exposure per photograph: invertible, the photographs' mean at the identity whatever is learnt, light multiplied."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.data.demo.render import linear_to_srgb
from closeup_ns.model.exposure import STOP, PhotographExposure, exposed


def exposure(seed: int, photographs: int = 4, spread: float = 0.3) -> PhotographExposure:
    module = PhotographExposure(photographs).double()
    generator = torch.Generator().manual_seed(seed)
    module.start(0.2 + spread * torch.randn(photographs, 3, generator=generator, dtype=torch.float64))
    return module


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_undo_inverts_what_is_not_clipped(seed: int, index: int) -> None:
    module = exposure(seed, spread=0.1)
    rgb = 0.1 + 0.4 * torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(module.undo(module(rgb, index), index), rgb)


def test_the_mean_of_the_log_gains_is_the_identity() -> None:
    """Whatever all photographs share is not theirs: adding it to all changes no picture."""
    module, shifted = exposure(1), exposure(1)
    assert torch.stack([module.of(index) for index in range(4)]).mean(0).abs().max() < 1e-15
    shifted.log_gain.data += torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    rgb = torch.rand(5, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(shifted(rgb, 2), module(rgb, 2))


@pytest.mark.parametrize("stops", [-1.0, -0.3, 0.3, 1.0])
def test_a_stop_doubles_the_light(stops: float) -> None:
    """Of the sRGB curve, but in its linear foot."""
    light = torch.linspace(0.02, 0.4, 50, dtype=torch.float64)[:, None, None].expand(50, 1, 3)
    before = torch.from_numpy(linear_to_srgb(light.numpy())).double()
    after = torch.from_numpy(linear_to_srgb((light * 2**stops).numpy())).double()
    found = exposed(before, torch.full((3,), stops * STOP, dtype=torch.float64))
    torch.testing.assert_close(found, after, rtol=0, atol=1e-3)


def test_it_clips_as_a_sensor_and_stays_in_range() -> None:
    rgb = torch.rand(5, 6, 3)
    for stops in (-6.0, 6.0):
        found = exposed(rgb, torch.full((3,), stops))
        assert found.min() >= 0 and found.max() <= 1
    assert (exposed(torch.ones(1, 1, 3), torch.full((3,), 0.1)) == 1).all()


def test_off_it_changes_no_bit() -> None:
    module, rgb = PhotographExposure(3), torch.rand(4, 5, 3)
    module.log_gain.data += torch.rand(3, 3)
    assert torch.equal(module(rgb, 1), rgb) and torch.equal(module.undo(rgb, 1), rgb)


def test_a_photograph_has_a_gradient_for_its_own_gain_only() -> None:
    """Adam makes whole steps of any gradient: one that is held out must have none, not a little one."""
    module = exposure(4)
    (module(torch.rand(4, 5, 3, dtype=torch.float64) / 2, 2).sum() + module.prior(2)).backward()
    grad = module.log_gain.grad
    assert grad is not None and grad[2].all() and not grad[[0, 1, 3]].any()


def test_the_decision_and_the_gains_are_saved() -> None:
    module, loaded = exposure(5), PhotographExposure(4).double()
    loaded.load_state_dict(module.state_dict())
    assert loaded.on and torch.equal(loaded.log_gain, module.log_gain)
