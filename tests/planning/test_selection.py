"""Eq. 5: the search against brute force, and the objective against its formula."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.planning.selection import REDUNDANCY, _best_swap, _quadratic, _value, eligible_views, select_views


def problem(n: int, seed: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and overlaps: unstructured, of cameras in a plane, or of tight clusters, which trap a greedy start."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, generator=generator, dtype=torch.float64)
    if kind == "noise":
        overlap = torch.rand(n, n, generator=generator, dtype=torch.float64)
        return weights, 0.5 * (overlap + overlap.T)
    places = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    if kind == "clusters":
        places = (places * 2).round() + 0.02 * places
    return weights, torch.exp(-3.0 * torch.cdist(places, places))


def objective_value(weights: torch.Tensor, overlap: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Of one selection [k] or many [b, k]."""
    return _value(*_quadratic(weights, overlap, chosen.shape[-1]), chosen)


def brute_force(weights: torch.Tensor, overlap: torch.Tensor, k: int) -> torch.Tensor:
    """The best selection of all."""
    every = torch.tensor(list(itertools.combinations(range(len(weights)), k)))
    return every[objective_value(weights, overlap, every).argmax()]


def literal(weights: torch.Tensor, overlap: torch.Tensor, chosen: list[int]) -> float:
    coverage = sum(float(weights[i]) for i in chosen)
    pairs = sum(float(overlap[i, j]) for i in chosen for j in chosen if i != j)
    return coverage - REDUNDANCY / max(len(chosen) - 1, 1) * pairs


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 26),
    st.integers(1, 8),
    st.integers(0, 2**31),
    st.sampled_from(["noise", "plane", "clusters"]),
)
def test_within_one_percent_of_the_optimum(n: int, k: int, seed: int, kind: str) -> None:
    k = min(k, n)
    if math.comb(n, k) > 20_000:
        k = min(k, 4)
    weights, overlap = problem(n, seed, kind)
    chosen = select_views(weights, overlap, k)
    best = brute_force(weights, overlap, k)
    reached, optimum = (float(objective_value(weights, overlap, s)) for s in (chosen, best))
    assert reached >= optimum - 0.01 * abs(optimum) - 1e-9
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.numel() == k


def test_objective_and_brute_force_equal_the_formula() -> None:
    weights, overlap = problem(7, 3, "noise")
    values = {chosen: literal(weights, overlap, list(chosen)) for chosen in itertools.combinations(range(7), 3)}
    for chosen, value in values.items():
        assert float(objective_value(weights, overlap, torch.tensor(chosen))) == pytest.approx(value)
    assert tuple(brute_force(weights, overlap, 3).tolist()) == max(values, key=lambda chosen: values[chosen])


def test_views_that_look_away_are_not_eligible() -> None:
    """20 views of the target and 10 that look away and overlap with nothing (papers.md 6.3, 7)."""
    weights = torch.cat([torch.full((20,), 0.9), torch.full((10,), 0.25)])
    overlap = torch.zeros(30, 30)
    overlap[:20, :20] = 2.97
    assert int((select_views(weights, overlap, 5) >= 20).sum()) > 0
    assert eligible_views(weights, 5).tolist() == list(range(20))


def test_fewer_eligible_than_wanted_are_the_heaviest() -> None:
    weights = torch.tensor([1.0, 0.1, 0.2, 0.0, 0.9])
    assert eligible_views(weights, 3).tolist() == [0, 2, 4]
    assert (
        eligible_views(weights, 9).tolist() == select_views(weights, torch.zeros(5, 5), 9).tolist() == [0, 1, 2, 3, 4]
    )


def test_a_local_optimum_has_no_improving_swap_in_a_large_problem() -> None:
    weights, overlap = problem(300, 5, "plane")
    chosen = select_views(weights, overlap, 8)
    value = float(objective_value(weights, overlap, chosen))
    others = [i for i in range(300) if i not in set(chosen.tolist())]
    swaps = [
        torch.cat([chosen[:i], chosen[i + 1 :], torch.tensor([j])]) for i, j in itertools.product(range(8), others)
    ]
    assert float(objective_value(weights, overlap, torch.stack(swaps)).max()) <= value + 1e-9


def test_one_step_is_the_best_of_all_single_swaps(generator: torch.Generator) -> None:
    weights, overlap = problem(12, 11, "plane")
    start = torch.stack([torch.randperm(12, generator=generator)[:4] for _ in range(6)])
    swapped, improved = _best_swap(*_quadratic(weights, overlap, 4), start)
    for before, after, better in zip(start, swapped, improved, strict=True):
        others = [j for j in range(12) if j not in before.tolist()]
        every = [[*before[:i].tolist(), j, *before[i + 1 :].tolist()] for i in range(4) for j in others]
        value = float(objective_value(weights, overlap, before))
        best = max(literal(weights, overlap, swap) for swap in every)
        assert bool(better) == (best > value + 1e-12)
        assert float(objective_value(weights, overlap, after)) == pytest.approx(max(best, value))
