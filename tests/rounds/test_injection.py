"""What a stored view trained_on, and what a round may densify."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from closeup_ns.model.strategy import NEVER
from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.rounds.injection import fine_tuning_strategy, injected_view, with_real_colors
from closeup_ns.rounds.settings import FineTuneConfig
from closeup_ns.rounds.store.view import PassRecord, StoredView
from tests.stored import a_view
from tests.trainers import MakeTrainer

CONFIG = FineTuneConfig(generated_weight=0.3, sparse_weight=0.4)
FAR = torch.tensor([0.0, 0.0, 50.0])


def unrecorded(**options: Any) -> StoredView:
    """A view that does not say itself whether it was generated."""
    return dataclasses.replace(a_view(**options), record=None)


def nearby(stored: StoredView) -> StoredView:
    """The same, as close as the photographs are: a photograph's pixel is one of the view's."""
    one = torch.ones_like(stored.reliable.footprint)
    return dataclasses.replace(stored, reliable=dataclasses.replace(stored.reliable, footprint=one))


@pytest.mark.parametrize("generates", [True, False])
def test_each_pixel_weighs_what_its_origin_is_worth(generates: bool) -> None:
    stored = nearby(unrecorded())
    target = injected_view(2, "update_00", stored, FAR, 1.0, CONFIG, generates, "cpu").target
    for row in range(14):
        for column in range(20):
            worth = 1.0 if stored.real[row, column] or not generates else 0.3
            expected, color = worth * float(stored.weight[row, column]), stored.image[row, column]
            if stored.reliable.sparse[row, column]:  # I_c = M real + (1 - M) refined
                expected, color = 1.0 if generates else expected, stored.reliable.color[:, row, column]
            assert float(target.weight[row, column]) == pytest.approx(expected)
            assert torch.allclose(target.image[row, column], color, atol=1e-6)
    assert torch.equal(target.sparse_color, stored.reliable.color.permute(1, 2, 0))
    assert torch.equal(target.sparse, stored.reliable.sparse)
    assert target.ssim_weight == (0.2 if generates else 0.0) and target.sparse_weight == 0.4


def test_up_close_a_reliable_pixel_is_as_real_as_its_share_of_the_photographs_pixel() -> None:
    stored = unrecorded()
    target = injected_view(1, "a", stored, FAR, 1.0, CONFIG, True, "cpu").target
    real = torch.where(stored.real, 1.0, 0.3) * stored.weight
    share = torch.where(stored.reliable.sparse, stored.reliable.footprint**-2, 0.0)
    assert torch.allclose(target.weight, real + share * (1.0 - real))
    known = stored.reliable

    def off(image: torch.Tensor) -> float:
        seen = as_photographed(image.permute(2, 0, 1), known.footprint)
        return float((seen - known.color)[:, known.sparse].abs().mean())

    # Made-up colours contradict each other within a footprint, so they cannot all be met.
    assert off(target.image) < 0.7 * off(stored.image), "photographs would see their own colours in it"
    assert torch.equal(target.footprint, stored.reliable.footprint)


def test_what_the_gate_refused_trained_on_the_photographs_colours_on_the_render() -> None:
    stored = nearby(unrecorded(verdict="reliable_only"))
    image, sparse = with_real_colors(stored), stored.reliable.sparse
    assert torch.allclose(image[~sparse], stored.render[~sparse])
    assert torch.allclose(image[sparse], stored.reliable.color.permute(1, 2, 0)[sparse], atol=1e-6)


def test_a_view_that_the_gate_mistrusts_trained_on_only_reliable_pixels() -> None:
    stored = unrecorded(verdict="reliable_only")
    target = injected_view(1, "update_00", stored, FAR, 1.0, CONFIG, True, "cpu").target
    assert not target.weight.any() and target.sparse.any()


@pytest.mark.parametrize(
    ("distance", "generates", "densify", "expected"),
    [(1.0, True, True, True), (1.04, True, True, True), (1.1, True, True, False), (1.0, False, True, False),
     (1.0, True, False, False)],
)  # fmt: skip
def test_only_near_generated_views_densify(distance: float, generates: bool, densify: bool, expected: bool) -> None:
    """Within a third of the original distance, here 3."""
    stored = unrecorded()
    target = stored.view.position + torch.tensor([0.0, distance, 0.0])
    config = dataclasses.replace(CONFIG, densify=densify)
    assert injected_view(1, "a", stored, target, 3.0, config, generates, "cpu").densifies is expected


def test_without_reliable_pixels_in_the_loss_none_are_laid_over_the_image() -> None:
    """The paper's Table 3 has a row for the generator alone."""
    stored, config = unrecorded(), dataclasses.replace(CONFIG, sparse_weight=0.0)
    assert torch.equal(injected_view(1, "a", stored, FAR, 1.0, config, True, "cpu").target.image, stored.image)


def test_a_view_that_the_gate_mistrusts_never_densifies() -> None:
    stored = unrecorded(verdict="reliable_only")
    assert not injected_view(1, "a", stored, stored.view.position, 3.0, CONFIG, True, "cpu").densifies


@pytest.mark.parametrize("generated", [True, False])
def test_a_view_knows_itself_whether_it_was_generated(generated: bool) -> None:
    """`auto` may choose another refiner where the run is resumed."""
    record = PassRecord("see3d", generated, 1, 3, ("train/a",), 1.0, "process")
    target = injected_view(1, "a", dataclasses.replace(a_view(), record=record), FAR, 1.0, CONFIG, not generated, "cpu")
    assert target.target.ssim_weight == (0.2 if generated else 0.0)


@pytest.mark.parametrize("generates", [True, False])
def test_a_rounds_strategy_is_fresh(make_trainer: MakeTrainer, generates: bool) -> None:
    model = make_trainer(pipeline__model__max_gaussians=700).pipeline.model
    base = model.base_strategy()
    strategy = fine_tuning_strategy(model, FineTuneConfig(), 1000, 100, 1 / 9, generates, growth=2.0)
    assert strategy is not model.strategy and not strategy.counts_this_step
    assert strategy.refine_start_iter == 1000
    assert strategy.refine_stop_iter == (1080 if generates else 0)
    assert strategy.reset_every == NEVER
    assert strategy.grow_scale3d == pytest.approx(base.grow_scale3d / 9)
    assert base.max_gaussians == 700
    assert strategy.max_gaussians == 1152, "twice 576: a full base leaves room for what a generator shows"
