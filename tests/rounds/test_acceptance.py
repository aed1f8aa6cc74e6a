"""Which photographs judge a round, what the verdict is, and that a trial leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.model.losses import InjectedTarget
from closeup_ns.rounds.loop import Rounds
from closeup_ns.rounds.trials import acceptance
from closeup_ns.rounds.trials.acceptance import (
    HELD_OUT_SHARE,
    SET_ASIDE_BLOCK,
    Candidate,
    RoundVerdict,
    decide,
    evidence_photographs,
    pixels_set_aside,
    try_round,
)
from closeup_ns.rounds.views import NativeView
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.views.view import View
from tests.rounds.test_trial import state_of
from tests.tiny import an_injected_view, run_in


def views_at(distances: list[float]) -> list[View]:
    """Views at these distances from the origin."""
    views = []
    for distance in distances:
        c2w = torch.eye(4)
        c2w[2, 3] = distance
        views.append(View(torch.eye(3), c2w, 8, 6))
    return views


ORIGIN = torch.zeros(3)
NATIVE = NativeView("a", 2, 0, views_at([1.0])[0], 1.0, lambda: (torch.zeros(6, 8, 3, dtype=torch.uint8), None))
distinct = st.lists(st.floats(0.01, 100.0), max_size=40, unique=True)


@given(distinct)
def test_held_out_photographs_are_the_closest_and_a_spread_and_never_all(distances: list[float]) -> None:
    views = views_at(distances)
    judges = evidence_photographs(views, ORIGIN)
    assert judges == sorted(set(judges)) == evidence_photographs(views, ORIGIN)
    assert len(judges) <= len(views) // 2
    if len(views) < 2:
        assert judges == []
        return
    count = min(max(round(HELD_OUT_SHARE * len(views)), 2), len(views) // 2)
    assert len(judges) == count
    closest = sorted(range(len(views)), key=lambda i: float(views[i].position.norm()))[: (count + 1) // 2]
    assert set(closest) <= set(judges)


def test_the_spread_reaches_both_ends() -> None:
    """Sixty-four photographs, the closest first: the far judges lie all over the rest, not in one corner."""
    judges = evidence_photographs(views_at([float(i + 1) for i in range(64)]), ORIGIN)
    assert judges[:4] == [0, 1, 2, 3]
    assert [4 <= judges[4] < 19, 19 <= judges[5] < 34, 34 <= judges[6] < 49, 49 <= judges[7] < 64] == [True] * 4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_quarter_is_set_aside_in_whole_blocks(seed: int) -> None:
    mask = pixels_set_aside(400, 500, seed)
    assert mask.shape == (400, 500) and mask.dtype == torch.bool
    assert pixels_set_aside(13, 9, seed).shape == (13, 9)
    assert float(mask.float().mean()) == pytest.approx(0.25, abs=0.04)
    blocks = mask.unfold(0, SET_ASIDE_BLOCK, SET_ASIDE_BLOCK).unfold(1, SET_ASIDE_BLOCK, SET_ASIDE_BLOCK)
    assert torch.equal(blocks.float().mean((-1, -2)), blocks[..., 0, 0].float())
    assert torch.equal(mask, pixels_set_aside(400, 500, seed))
    assert not torch.equal(mask, pixels_set_aside(400, 500, seed + 1))


def verdict(photographs: float, reliable: float | None, native: float | None) -> RoundVerdict:
    """A trial in which the control scored 20 dB on everything."""
    scores = {"photographs": photographs, "reliable": reliable, "native": native}
    figures = {f"{name}_control": None if change is None else 20.0 for name, change in scores.items()}
    figures |= {f"{name}_round": None if change is None else 20.0 + change for name, change in scores.items()}
    return RoundVerdict(False, "", **figures)


@pytest.mark.parametrize(
    ("photographs", "reliable", "native", "generates", "accepted"),
    [
        (0.1, 0.2, None, False, True),
        (0.04, 0.0, None, False, False),  # a gain within the noise
        (0.06, 0.0, None, False, True),
        (0.1, -0.05, None, False, True),
        (0.1, -0.11, None, False, False),
        (0.1, None, None, False, True),  # no reliable pixel was set aside
        (-0.1, None, None, False, False),
        (-1.9, 0.0, None, True, True),  # invented detail may cost a little
        (-2.1, 1.0, None, True, False),
        (-0.15, -2.0, None, True, True),  # detail that no photograph holds is off where geometry carries photographs
        (-0.15, -3.1, None, True, False),
        # Native crops judge refined views at their own scale.
        (0.3, None, 0.1, False, True),
        (0.01, None, 0.15, False, True),  # the reliable refiner on fern
        (0.3, None, 0.0, False, False),  # what refines without inventing must gain at its own scale, too
        (-0.2, None, 1.0, False, False),
        (-0.64, None, -0.67, True, True),  # the truth, on the demo
        (0.3, None, -1.1, True, False),
    ],
)
def test_the_rule(
    photographs: float, reliable: float | None, native: float | None, generates: bool, accepted: bool
) -> None:
    before = verdict(photographs, reliable, native)
    after = decide(before, generates)
    assert after.accepted is accepted
    assert f"{photographs:+.3f} dB" in after.reason and (native is None or f"{native:+.3f} dB" in after.reason)
    assert after.photographs_round == before.photographs_round


def test_photographs_of_which_nothing_counts_prove_nothing() -> None:
    after = decide(RoundVerdict(True, ""), generates=True)
    assert not after.accepted and "nothing that counts" in after.reason


@pytest.fixture
def prepared(trainer: CloseupTrainer) -> CloseupTrainer:
    data = trainer.pipeline.datamanager
    data.injected_probability, data.current_round = 0.5, 2
    data.injected = [an_injected_view(data.train_view(3), round_index=1, seed=7)]
    return trainer


def test_a_trial_leaves_the_model_as_it_was(prepared: CloseupTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared.pipeline.datamanager
    views = [an_injected_view(data.train_view(index), round_index=2, seed=index) for index in (0, 1)]
    photographs, injected, next_train = list[int](), list[InjectedTarget](), data.next_train

    def recorded(step: int) -> Any:
        camera, batch = next_train(step)
        if "injected" in batch:
            injected.append(batch["injected"])
        else:
            photographs.append(camera.metadata["cam_idx"])
        return camera, batch

    monkeypatch.setattr(data, "next_train", recorded)
    before, earlier = state_of(prepared), list(data.injected)
    target = data.train_view(0).position
    found = try_round(run_in(prepared), Candidate(2, views, target, False, 60, 100))
    assert state_of(prepared) == before
    assert data.held_out == frozenset() and data.injected == earlier
    assert found.trial_steps == 20
    assert found.photographs_control is not None and found.photographs_round != found.photographs_control
    assert found.known_share == 1.0
    # The held-out photographs were not trained on, and neither were the pixels set aside.
    held_out = evidence_photographs(data.train_views(), target)
    assert not set(held_out) & set(photographs) and len(photographs) > 10
    held_back = [target for target in injected if target is not earlier[0].target]
    assert held_back
    for trained in held_back:
        seed = next(s for s, view in enumerate(views) if torch.equal(view.target.image, trained.image))
        aside = pixels_set_aside(48, 64, seed)
        assert not trained.weight[aside].any() and not trained.sparse[aside].any()
        assert trained.weight[~aside].all()


def test_without_injected_views_both_arms_are_the_same_to_the_last_bit(prepared: CloseupTrainer) -> None:
    data = prepared.pipeline.datamanager
    data.injected_probability = 0.0
    views = [an_injected_view(data.train_view(0), round_index=2)]
    found = try_round(run_in(prepared), Candidate(2, views, data.train_view(0).position, False, 60, 40))
    assert found.photographs_control == found.photographs_round
    assert found.reliable_control == found.reliable_round


def test_nothing_to_train_on_and_nothing_to_judge_by(prepared: CloseupTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("no trial is needed")

    monkeypatch.setattr(acceptance, "run_steps", never)
    data = prepared.pipeline.datamanager
    target = data.train_view(0).position
    refused = try_round(run_in(prepared), Candidate(2, [], target, False, 60, 40))
    assert not refused.accepted and "no view" in refused.reason
    data.native = [NATIVE]
    photographs = try_round(run_in(prepared), Candidate(2, [], target, False, 60, 40))
    assert photographs.accepted and "are photographs" in photographs.reason
    prepared.pipeline.config.acceptance.enabled = False
    view = an_injected_view(data.train_view(0), round_index=2)
    kept = try_round(run_in(prepared), Candidate(2, [view], target, False, 60, 40))
    assert kept.views == 1 and photographs.views == 0
    assert kept.accepted and "not judged" in kept.reason and kept.known_share == 1.0


def test_a_stored_decision_is_about_the_views_that_were_judged(prepared: CloseupTrainer, tmp_path: Path) -> None:
    """A run without a refiner is gone on with by `--load-dir` and has one now: its rounds judged no views."""
    rounds = Rounds(run_in(prepared), tmp_path / "rounds")
    prepared.pipeline.config.acceptance.enabled = False
    data = prepared.pipeline.datamanager
    data.native = [NATIVE]
    without = Candidate(2, [], data.train_view(0).position, False, 60, 40)
    view = an_injected_view(data.train_view(0), round_index=2)
    assert "are photographs" in rounds._judge(without).reason
    decided = rounds._judge(replace(without, views=[view]))
    assert "not judged" in decided.reason and decided.views == 1
    prepared.pipeline.config.acceptance.enabled = True
    assert rounds._judge(replace(without, views=[view])) == decided  # it is not tried again
