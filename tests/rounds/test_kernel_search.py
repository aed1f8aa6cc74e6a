"""The pixel kernel: hill climbing finds the top, and the search changes nothing but the kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.rounds.trials import kernel_search
from closeup_ns.rounds.trials.kernel_search import climb, held_out_indices, nearest, search_kernel
from closeup_ns.studio.trainer import CloseupTrainer
from tests.rounds.test_trial import state_of
from tests.tiny import run_in


@given(
    st.lists(st.floats(0.1, 5.0), max_size=8),
    st.lists(st.floats(0.1, 5.0), max_size=8),
    st.data(),
    st.floats(0.0, 0.09),
)
def test_the_top_of_a_hill_is_found_from_anywhere(
    up: list[float], down: list[float], data: st.DataObject, min_gain: float
) -> None:
    scores = [0.0]
    for rise in up:
        scores.append(scores[-1] + rise)
    for fall in down:
        scores.append(scores[-1] - fall)
    start = data.draw(st.integers(0, len(scores) - 1))
    asked: list[int] = []

    def score(position: int) -> float:
        asked.append(position)
        return scores[position]

    assert climb(start, len(scores), score, min_gain) == scores.index(max(scores)) == len(up)
    assert all(0 <= position < len(scores) for position in asked)


@given(st.lists(st.floats(0.0, 0.02), min_size=1, max_size=9), st.data())
def test_noise_does_not_move_it(scores: list[float], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(scores) - 1))
    assert climb(start, len(scores), scores.__getitem__, 0.02) == start


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9), st.data(), st.floats(0.0, 0.5))
def test_of_equals_the_one_nearest_to_the_start_is_taken(
    scores: list[float], data: st.DataObject, tolerance: float
) -> None:
    start = data.draw(st.integers(0, len(scores) - 1))
    top = data.draw(st.integers(0, len(scores) - 1))
    chosen = nearest(start, top, scores.__getitem__, tolerance)
    assert scores[chosen] >= scores[top] - tolerance
    low, high = sorted((start, top))
    on_the_way = [position for position in range(low, high + 1) if scores[position] >= scores[top] - tolerance]
    assert chosen in on_the_way and all(abs(position - start) >= abs(chosen - start) for position in on_the_way)


@given(st.integers(0, 100))
def test_one_photograph_in_eight_is_held_out_and_none_of_few(count: int) -> None:
    chosen = held_out_indices(count)
    assert chosen == [] if count < 8 else count // 8 <= len(chosen) <= count // 8 + 1
    assert set(chosen) <= set(range(count))


def test_the_search_sets_the_best_kernel_and_nothing_else(
    trainer: CloseupTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = trainer.pipeline.model, trainer.pipeline.datamanager
    data.hold_out([4, 2])
    start = model.kernel
    tried: list[float] = []

    def score(_: object, indices: list[int]) -> float:
        assert indices == [2, 4], "the held-out photographs"
        tried.append(model.kernel.variance)
        return -10 * (model.kernel.variance - 0.41) ** 2  # best at 0.45

    monkeypatch.setattr(kernel_search, "photograph_psnr", score)
    before = state_of(trainer)
    monkeypatch.setattr(kernel_search, "CANDIDATES", (0.1, 0.3, 0.45, 0.6))
    monkeypatch.setattr(kernel_search, "MIN_GAIN", 1e-6)
    monkeypatch.setattr(kernel_search, "TOLERANCE", 1e-6)
    scores = search_kernel(run_in(trainer), 20, trial_steps=2)
    assert model.kernel.variance == pytest.approx(0.45) and model.kernel.supersample == start.supersample
    assert max(scores, key=lambda variance: scores[variance]) == 0.45
    assert len(tried) == len(set(tried)) == len(scores)  # each kernel is tried once
    model.kernel = start
    assert state_of(trainer) == before
    assert data.held_out == {2, 4}
