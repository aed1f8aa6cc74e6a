"""Which close-ups are refined together: joint passes of a bounded number of pictures (issue 5, point 3).

A generator with joint attention makes the pictures of one pass agree, at a cost that grows with the square of their
number. So a round is cut into passes, and later passes are shown finished views of earlier ones beside the anchors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.views.overlap import DepthViews, shared_fraction

MAX_NEIGHBOURS = 4
"""Finished views that a pass is shown: enough to surround its targets, few enough to leave room for them."""
_MIN_GAIN = 0.01
"""A reference that shows less than this share of the targets' pixels anew is not worth its cost."""
_POINT_TESTS = 4_000_000
"""Pixels times pairs of views that are tested: 300 targets take a quarter of a second on one core."""
_LEAST_PIXELS = 64
"""Pixels tested per view even then: shared fractions to within about 5%."""


@dataclass(frozen=True)
class RefinePass:
    """One joint pass; indices into what was planned."""

    targets: tuple[int, ...]
    """Views to refine."""
    neighbours: tuple[int, ...]
    """Targets of earlier passes whose refined pictures are shown."""
    anchors: tuple[int, ...]
    """Anchors that are shown."""


def plan_passes(targets: DepthViews, anchors: DepthViews, frames: int) -> list[RefinePass]:
    """Cut ``targets`` into passes of at most ``frames`` pictures, in the order in which they are to be done.

    Where all fit, there is one pass. Otherwise the first starts at the target that the anchors see best, each later one
    at the target that shares most with a finished one; a pass is filled with what shares most with its targets.
    Neighbours and, where frames are few, anchors are those that together show most of the pass's targets, so that
    two alike come after one that differs. A neighbour that shows nothing new is left out: its place is a target's.
    Deterministic; ties go to the lower index.

    Args:
        targets, anchors: views with small depth maps (`closeup_ns.views.overlap.stack_depths`), on one device.
            There is at least one target; without anchors nothing but neighbours is shown.
        frames: pictures in one pass, references included; at least 2.

    Returns:
        Every target in exactly one pass, at least one of them and, if there are any, one anchor in each pass.
    """
    if len(targets) + len(anchors) <= frames:
        return [RefinePass(tuple(range(len(targets))), (), tuple(range(len(anchors))))]
    return _Planner(targets, anchors, frames).passes()


class _Planner:
    """The shares between views, and which targets are finished."""

    def __init__(self, targets: DepthViews, anchors: DepthViews, frames: int) -> None:
        self.frames = frames
        # Fractions of the targets' pixels: [target, other target] and [target, anchor].
        self.shared = _shares(targets, targets).fill_diagonal_(1.0)
        self.anchored = _shares(targets, anchors)
        self.alike = 0.5 * (self.shared + self.shared.T)
        self.waiting = torch.ones(len(targets), dtype=torch.bool)
        # Anchors give way to targets beyond a third of the pass.
        self.anchor_room = max(1, frames // 3)

    def passes(self) -> list[RefinePass]:
        """All passes, in order."""
        result = []
        while bool(self.waiting.any()):
            result.append(self._next())
        return result

    def _next(self) -> RefinePass:
        room = self.frames - min(self.anchored.shape[1], self.anchor_room)
        finished = (~self.waiting).nonzero()[:, 0]
        wanted = min(MAX_NEIGHBOURS, len(finished), room - 1)
        chosen = self._grow(self._seed(finished), room - wanted)
        rows = torch.tensor(chosen)
        neighbours = covering(self.shared[rows][:, finished], wanted, fill=False)
        # What neighbours do not need is free for further targets.
        chosen = self._grow(chosen, room - len(neighbours))
        self.waiting[chosen] = False
        anchors = covering(self.anchored[torch.tensor(chosen)], self.frames - len(chosen) - len(neighbours), fill=True)
        return RefinePass(tuple(chosen), tuple(int(finished[i]) for i in neighbours), tuple(sorted(anchors)))

    def _seed(self, finished: Tensor) -> list[int]:
        """The target that the next pass starts at."""
        score = self.anchored.mean(1) if self.anchored.shape[1] else self.alike.mean(1)
        if len(finished):
            # Anchors only decide between targets that finished views see equally well.
            score = self.alike[:, finished].amax(1) + 1e-3 * score
        return [_best(score, self.waiting)]

    def _grow(self, chosen: list[int], size: int) -> list[int]:
        """``chosen`` with further waiting targets, each the one that shares most with those before it."""
        chosen = list(chosen)
        free = self.waiting.clone()
        free[chosen] = False
        affinity = self.alike[:, chosen].sum(1)
        while len(chosen) < size and bool(free.any()):
            index = _best(affinity, free)
            chosen.append(index)
            free[index] = False
            affinity = affinity + self.alike[:, index]
        return chosen


def _shares(sources: DepthViews, destinations: DepthViews) -> Float[Tensor, "n_src n_dst"]:
    """Shared fractions on the CPU in float64, from as many pixels as there is time for."""
    if len(destinations) == 0:
        return torch.zeros(len(sources), 0, dtype=torch.float64)
    height, width = sources.depth.shape[1:]
    pixels = max(_LEAST_PIXELS, _POINT_TESTS // (len(sources) * len(destinations)))
    stride = max(1, math.floor(math.sqrt(height * width / pixels)))
    return shared_fraction(sources, destinations, stride=stride).cpu().double()


def _best(score: Float[Tensor, "n"], allowed: Tensor) -> int:
    """Index of the greatest allowed score, the first of equals: argmax alone may return any of them."""
    score = torch.where(allowed, score, torch.full_like(score, -torch.inf))
    return int((score == score.max()).nonzero()[0])


def covering(shares: Float[Tensor, "n_target n"], count: int, fill: bool) -> list[int]:
    """At most ``count`` columns that together show most of the rows; greedy, each by what it adds.

    What adds less than `_MIN_GAIN` is left out, or with ``fill`` chosen last, by what it shows.
    """
    covered = torch.zeros(shares.shape[0], 1, dtype=shares.dtype)
    allowed = torch.ones(shares.shape[1], dtype=torch.bool)
    shown = shares.mean(0)
    chosen: list[int] = []
    while len(chosen) < count and bool(allowed.any()):
        gain = (shares - covered).clamp_min(0).mean(0)
        index = _best(gain + 1e-3 * shown, allowed)
        if float(gain[index]) < _MIN_GAIN and not fill:
            break
        chosen.append(index)
        allowed[index] = False
        covered = torch.maximum(covered, shares[:, index, None])
    return chosen
