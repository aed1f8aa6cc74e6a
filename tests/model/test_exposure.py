"""Exposure per photograph: invertible, the identity at the start, held there on average."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.model.exposure import ExposureCompensation


def compensation(seed: int, images: int = 4, spread: float = 0.3) -> ExposureCompensation:
    module = ExposureCompensation(images).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = spread * torch.randn(images, 3, generator=generator, dtype=torch.float64)
    return module


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_undo_inverts(seed: int, index: int) -> None:
    module = compensation(seed)
    rgb = torch.rand(5, 6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(module.undo(module(rgb, index), index), rgb)


def test_undo_stays_in_range_and_each_photograph_has_its_own() -> None:
    module = compensation(1, spread=2.0)
    photograph = torch.rand(5, 6, 3, dtype=torch.float64)
    undone = module.undo(photograph, 2)
    assert undone.min() >= 0 and undone.max() <= 1
    assert not torch.equal(module(photograph, 0), module(photograph, 1))


def test_the_start_is_the_identity_without_drift() -> None:
    module = ExposureCompensation(3)
    rgb = torch.rand(4, 5, 3)
    assert torch.equal(module(rgb, 1), rgb)
    assert torch.equal(module.undo(rgb, 1), rgb)
    assert float(module.drift()) == 0.0


def test_common_drift_costs_far_more_than_differences_between_photographs() -> None:
    """What all photographs share must stay the model's own; what tells them apart may be compensated."""
    common, apart = ExposureCompensation(2), ExposureCompensation(2)
    common.log_gain.data[:] = 0.1
    apart.log_gain.data[:] = torch.tensor([[0.1], [-0.1]])
    assert float(common.drift()) > 50 * float(apart.drift()) > 0
    common.drift().backward()
    assert common.log_gain.grad is not None and (common.log_gain.grad > 0).all()
