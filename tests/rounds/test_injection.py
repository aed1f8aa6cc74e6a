"""What a stored view is trained on, and what a round may densify."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.model.strategy import NEVER
from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.rounds.injection import fine_tuning_strategy, injected_view, with_real_colors
from closeup_ns.rounds.loop import GROWTH, Rounds
from closeup_ns.rounds.settings import FineTuneConfig
from closeup_ns.rounds.store.view import StoredView
from closeup_ns.rounds.views import InjectedView
from tests.stored import a_view
from tests.tiny import run_in
from tests.trainers import MakeTrainer

CONFIG = FineTuneConfig(generated_weight=0.3, sparse_weight=0.4)
FAR = torch.tensor([0.0, 0.0, 50.0])


def refined_view(generates: bool = True, near: bool = False, **options: Any) -> StoredView:
    """A stored view; with ``near`` as close as the photographs are: a photograph's pixel is one of the view's."""
    stored = a_view(**options)
    if near:
        stored.reliable.footprint[:] = 1
    return dataclasses.replace(stored, record=dataclasses.replace(stored.record, generates=generates))


def injected(
    stored: StoredView, target: torch.Tensor = FAR, distance: float = 1.0, config: FineTuneConfig = CONFIG
) -> InjectedView:
    return injected_view(2, "update_00", stored, target, distance, config, "cpu")


@pytest.mark.parametrize("generates", [True, False])
def test_each_pixel_weighs_what_its_origin_is_worth(generates: bool) -> None:
    stored = refined_view(generates, near=True)
    target = injected(stored).target
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
    stored = refined_view()
    target = injected(stored).target
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


def test_what_the_gate_refused_trains_with_the_photographs_colours_on_the_render() -> None:
    stored = refined_view(near=True, verdict="reliable_only")
    image, sparse = with_real_colors(stored), stored.reliable.sparse
    assert torch.allclose(image[~sparse], stored.render[~sparse])
    assert torch.allclose(image[sparse], stored.reliable.color.permute(1, 2, 0)[sparse], atol=1e-6)
    target = injected(stored).target
    assert not target.weight.any() and target.sparse.any()


@pytest.mark.parametrize(
    ("distance", "generates", "densify", "verdict", "expected"),
    [
        (1.0, True, True, "accepted", True),
        (1.04, True, True, "accepted", True),
        (1.1, True, True, "accepted", False),
        (1.0, False, True, "accepted", False),
        (1.0, True, False, "accepted", False),
        (1.0, True, True, "reliable_only", False),
    ],
)
def test_only_near_generated_views_that_were_accepted_densify(
    distance: float, generates: bool, densify: bool, verdict: Any, expected: bool
) -> None:
    """Within a third of the original distance, here 3."""
    stored = refined_view(generates, verdict=verdict)
    target = stored.view.position + torch.tensor([0.0, distance, 0.0])
    assert injected(stored, target, 3.0, dataclasses.replace(CONFIG, densify=densify)).densifies is expected


def test_without_reliable_pixels_in_the_loss_none_are_laid_over_the_image() -> None:
    """The paper's Table 3 has a row for the generator alone."""
    stored, config = refined_view(), dataclasses.replace(CONFIG, sparse_weight=0.0)
    assert torch.equal(injected(stored, config=config).target.image, stored.image)


@pytest.mark.parametrize("generates", [True, False])
def test_a_rounds_strategy_is_fresh(make_trainer: MakeTrainer, generates: bool) -> None:
    model = make_trainer(pipeline__model__max_gaussians=700).pipeline.model
    base = model.base_strategy()
    strategy = fine_tuning_strategy(model, FineTuneConfig(), 1000, 100, generates, max_gaussians=1152)
    assert strategy is not model.strategy and not strategy.counts_this_step
    assert strategy.refine_start_iter == 1000
    assert strategy.refine_stop_iter == (1080 if generates else 0)
    assert strategy.reset_every == NEVER
    assert base.max_gaussians == 700
    assert strategy.max_gaussians == 1152, "a full base leaves room for what a generator shows"


def test_a_rounds_budget_is_a_multiple_of_what_it_began_with(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Also where it is resumed in its middle, with the Gaussians that it has by then: each kill would raise it."""
    trainer = make_trainer()
    model, rounds = trainer.pipeline.model, Rounds(run_in(trainer), tmp_path)
    rounds._prepare(1, True, range(100, 200), 100)
    at_start, saved = model.num_points, model.state_dict()["gaussians_at_start"].clone()
    model.start_from(torch.randn(2 * at_start, 3), torch.zeros(2 * at_start, 3, dtype=torch.uint8))
    model.gaussians_at_start.copy_(saved)
    rounds._prepare(1, True, range(100, 200), 150)
    assert model.strategy.max_gaussians == int(GROWTH * at_start) < model.num_points
