"""Choosing k of n views that cover much and share little (paper, Eq. 5 and Algorithm 1).

The literal Eq. 5 counts each pair twice plus the diagonal, so its k^2 overlap terms drown the k coverage terms and it
prefers views that do not see the target at all. Our objective, with fractions in [0, 1] and a zero diagonal,

    s'w - lam / (k - 1) * s'E s,

weighs them evenly, and views that see far less than the best one are not eligible. The search is deterministic, greedy
starts improved by the best swap until none helps, where Algorithm 1 tries random swaps (papers.md
6.3, points 7, 8, 12).
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup_ns.errors import CloseupError

REDUNDANCY = 0.5
"""Lambda: weight of overlap against coverage."""
ELIGIBLE_FRACTION = 0.3
"""Views that cover less than this share of what the best one covers are not chosen."""
_BRUTE_FORCE_LIMIT = 200_000
_START_BUDGET = 20_000
"""Swap gains (starts x k x n) evaluated at once: small problems start from every view, large ones from a few."""
_FEWEST_STARTS = 4
_TOLERANCE = 1e-12


def select_views(
    weights: Float[Tensor, "n"],
    similarity: Float[Tensor, "n n"],
    k: int,
    eligible_fraction: float = ELIGIBLE_FRACTION,
) -> Int[Tensor, "m"]:
    """Choose ``m = min(k, n)`` views; returns their sorted indices (Eq. 5, Algorithm 1).

    Args:
        weights: coverage of each view.
        similarity: overlap of each pair; symmetrised, its diagonal does not count.
        k: number of views wanted.
        eligible_fraction: views with less than this share of the largest weight are left out, unless fewer than k
            would remain; then the heaviest k are used. 0 admits all.

    Raises:
        CloseupError: shapes do not match, or k < 1.
    """
    count = weights.shape[0]
    if weights.dim() != 1 or tuple(similarity.shape) != (count, count):
        raise CloseupError(
            f"select_views needs weights [n] and similarity [n, n]; got {list(weights.shape)}, {list(similarity.shape)}"
        )
    if k < 1 or count < 1:
        raise CloseupError(f"cannot select {k} of {count} views")
    eligible = _eligible(weights, min(k, count), eligible_fraction)
    if eligible.numel() <= k:
        return eligible
    gain, penalty = _quadratic(weights[eligible], similarity[eligible][:, eligible], k)
    chosen = _greedy_swap(gain, penalty, k)
    return eligible[chosen.to(eligible.device)].sort().values


def objective_value(
    weights: Float[Tensor, "n"],
    similarity: Float[Tensor, "n n"],
    selection: Int[Tensor, "*b k"],
) -> Float[Tensor, "*b"]:
    """What `select_views` maximises, in float64, for one selection [k] or many [b, k]."""
    gain, penalty = _quadratic(weights, similarity, selection.shape[-1])
    selection = selection.to(gain.device)
    return gain[selection].sum(-1) - penalty[selection[..., :, None], selection[..., None, :]].sum((-1, -2))


def brute_force(
    weights: Float[Tensor, "n"],
    similarity: Float[Tensor, "n n"],
    k: int,
) -> Int[Tensor, "k"]:
    """The best selection by trying all, without an eligibility filter; for tests.

    Raises:
        CloseupError: more than 200 000 combinations.
    """
    count = weights.shape[0]
    k = min(k, count)
    if math.comb(count, k) > _BRUTE_FORCE_LIMIT:
        raise CloseupError(f"{math.comb(count, k)} combinations are too many to try; use select_views")
    every = torch.tensor(list(itertools.combinations(range(count), k)))
    return every[objective_value(weights, similarity, every).argmax()]


def _eligible(weights: Tensor, k: int, fraction: float) -> Tensor:
    """Sorted indices of the views that may be chosen; at least k."""
    threshold = fraction * weights.max() if fraction > 0 else -torch.inf
    enough = (weights >= threshold).nonzero()[:, 0]
    if enough.numel() < k:
        enough = weights.argsort(descending=True, stable=True)[:k].sort().values
    return enough


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
    value = gain[chosen].sum(1) - penalty[chosen[:, :, None], chosen[:, None, :]].sum((1, 2))
    return chosen[value.argmax()]


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
