"""Choosing k of n views that cover much and share little (paper, Eq. 5 and Algorithm 1).

The literal Eq. 5 counts each pair twice plus the diagonal, so its k^2 overlap terms drown the k coverage terms and it
prefers views that do not see the target at all. Our objective, with fractions in [0, 1] and a zero diagonal,

    s'w - lam / (k - 1) * s'E s,

weighs them evenly, and views that see far less than the best one are not eligible. The search is deterministic, greedy
starts improved by the best swap until none helps, where Algorithm 1 tries random swaps (papers.md
6.3, points 7, 8, 12).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

REDUNDANCY = 0.5
"""Lambda: weight of overlap against coverage."""
ELIGIBLE_FRACTION = 0.3
"""Views that cover less than this share of what the best one covers are not to be chosen."""
_START_BUDGET = 20_000
"""Swap gains (starts x k x n) evaluated at once: small problems start from every view, large ones from a few."""
_FEWEST_STARTS = 4
_TOLERANCE = 1e-12


def eligible_views(weights: Float[Tensor, "n"], k: int) -> Int[Tensor, "m"]:
    """Sorted indices of the views that may be chosen: those of at least `ELIGIBLE_FRACTION` of the largest weight.

    Where those are fewer than ``k``, the ``k`` heaviest.
    """
    enough = (weights >= ELIGIBLE_FRACTION * weights.max()).nonzero()[:, 0]
    return enough if enough.numel() >= k else weights.argsort(descending=True, stable=True)[:k].sort().values


def select_views(weights: Float[Tensor, "n"], similarity: Float[Tensor, "n n"], k: int) -> Int[Tensor, "m"]:
    """Choose ``m = min(k, n)`` views; returns their sorted indices (Eq. 5, Algorithm 1).

    Args:
        weights: coverage of each view.
        similarity: overlap of each pair; symmetrised, its diagonal does not count.
        k: number of views wanted.
    """
    if weights.numel() <= k:
        return torch.arange(weights.numel(), device=weights.device)
    return _greedy_swap(*_quadratic(weights, similarity, k), k).sort().values.to(weights.device)


def _quadratic(weights: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The objective as sum(gain) - s' penalty s with a symmetric, zero-diagonal penalty. Float64 on the CPU."""
    gain = weights.detach().double().cpu()
    penalty = similarity.detach().double().cpu()
    penalty = 0.5 * (penalty + penalty.T)
    return gain, (REDUNDANCY / max(k - 1, 1) * penalty).fill_diagonal_(0.0)


def _greedy_swap(gain: Tensor, penalty: Tensor, k: int) -> Tensor:
    """The best local optimum over several greedy starts, all improved at once."""
    count = gain.shape[0]
    starts = min(count, max(_FEWEST_STARTS, _START_BUDGET // (k * count)))
    heaviest = gain.argsort(descending=True, stable=True)
    chosen = torch.cat([_grow(gain, penalty, heaviest[:starts], k), heaviest[None, :k]])
    while True:
        better, improved = _best_swap(gain, penalty, chosen)
        if not bool(improved.any()):
            break
        chosen = better
    return chosen[_value(gain, penalty, chosen).argmax()]


def _value(gain: Tensor, penalty: Tensor, chosen: Tensor) -> Tensor:
    """The objective of each selection [..., k]."""
    return gain[chosen].sum(-1) - penalty[chosen[..., :, None], chosen[..., None, :]].sum((-1, -2))


def _grow(gain: Tensor, penalty: Tensor, first: Tensor, k: int) -> Tensor:
    """Greedy selections [s, k], each begun with one of the views ``first`` [s]."""
    chosen = first[:, None]
    marginal = gain - 2.0 * penalty[first]
    marginal.scatter_(1, chosen, -torch.inf)
    for _ in range(k - 1):
        added = marginal.argmax(1, keepdim=True)
        chosen = torch.cat([chosen, added], dim=1)
        marginal = (marginal - 2.0 * penalty[added[:, 0]]).scatter_(1, added, -torch.inf)
    return chosen


def _best_swap(gain: Tensor, penalty: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Make the best single exchange in each selection [s, k]; also tells which selections improved."""
    k = chosen.shape[1]
    shared = penalty[chosen]
    marginal = gain - 2.0 * shared.sum(1)
    leaving = marginal.gather(1, chosen)
    delta = marginal[:, None, :] - leaving[:, :, None] + 2.0 * shared
    delta.scatter_(2, chosen[:, None, :].expand(-1, k, -1), -torch.inf)
    best, place = delta.flatten(1).max(1)
    improved = best > _TOLERANCE
    swapped = chosen.scatter(1, (place // gain.shape[0])[:, None], (place % gain.shape[0])[:, None])
    return torch.where(improved[:, None], swapped, chosen), improved
