"""Passes: their bounds for any overlaps, and that they follow the overlaps."""

from __future__ import annotations

from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine import chunking
from closeup_ns.refine.chunking import RefinePass, plan_passes
from closeup_ns.views.overlap import DepthViews, stack_depths
from closeup_ns.views.view import View
from tests.refine.scene import camera, seen


def batch(views: list[View]) -> DepthViews:
    return stack_depths(views, [seen(view, 1)[1] for view in views])


def close(x: float, y: float = 1.0) -> View:
    """A camera 0.5 before the wall, which sees 0.4 of it in width, above the box unless ``y`` says otherwise."""
    return camera(x, y, 3.5, 32, 24)


def empty(count: int) -> DepthViews:
    """Views whose overlaps are given by the test."""
    return DepthViews(
        torch.eye(3).expand(count, 3, 3),
        torch.eye(4).expand(count, 4, 4),
        torch.ones(count, 2, dtype=torch.long),
        torch.ones(count, 1, 1),
    )


def planned(shared: Tensor, anchored: Tensor, frames: int, neighbours: int = 4) -> list[RefinePass]:
    shares = patch.object(chunking, "_shares", side_effect=[shared.clone(), anchored.clone()])
    with shares, patch.object(chunking, "MAX_NEIGHBOURS", neighbours):
        return plan_passes(empty(len(shared)), empty(anchored.shape[1]), frames)


def overlaps(seed: int, targets: int, anchors: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.rand(targets, targets, generator=generator, dtype=torch.float64)
    anchored = torch.rand(targets, anchors, generator=generator, dtype=torch.float64)
    return shared * (shared > 0.3), anchored


PASSES = {
    "seed": st.integers(0, 9999),
    "targets": st.integers(1, 40),
    "anchors": st.integers(0, 9),
    "frames": st.integers(2, 20),
    "neighbours": st.integers(0, 6),
}


@settings(max_examples=150, deadline=None)
@given(**PASSES)
def test_every_target_once_and_never_too_many_pictures(
    seed: int, targets: int, anchors: int, frames: int, neighbours: int
) -> None:
    passes = planned(*overlaps(seed, targets, anchors), frames, neighbours)
    assert sorted(index for one in passes for index in one.targets) == list(range(targets))
    finished: set[int] = set()
    for one in passes:
        assert len(one.targets) >= 1 and len(one.targets) + len(one.neighbours) + len(one.anchors) <= frames
        assert len(one.anchors) >= min(1, anchors) and len(set(one.anchors)) == len(one.anchors)
        assert all(0 <= index < anchors for index in one.anchors) and one.anchors == tuple(sorted(one.anchors))
        assert set(one.neighbours) <= finished and len(set(one.neighbours)) == len(one.neighbours) <= neighbours
        finished |= set(one.targets)
    if targets + anchors <= frames:
        assert passes == [RefinePass(tuple(range(targets)), (), tuple(range(anchors)))], "in the order given"


@settings(max_examples=60, deadline=None)
@given(**PASSES)
def test_other_labels_give_the_same_passes(seed: int, targets: int, anchors: int, frames: int, neighbours: int) -> None:
    shared, anchored = overlaps(seed, targets, anchors)
    generator = torch.Generator().manual_seed(seed + 1)
    order, places = (torch.randperm(count, generator=generator) for count in (targets, anchors))
    forth = planned(shared, anchored, frames, neighbours)
    back = planned(shared[order][:, order], anchored[order][:, places], frames, neighbours)
    assert planned(shared, anchored, frames, neighbours) == forth
    assert len(forth) == len(back)
    for one, other in zip(forth, back, strict=True):
        assert set(one.targets) == {int(order[index]) for index in other.targets}
        assert set(one.neighbours) == {int(order[index]) for index in other.neighbours}
        assert set(one.anchors) == {int(places[index]) for index in other.anchors}


def test_passes_go_outwards_from_what_the_anchors_see() -> None:
    # A row of close-ups; the only anchor looks at its right end.
    targets, anchors = batch([close(0.2 * index) for index in range(9)]), batch([close(1.58)])
    first, *later = plan_passes(targets, anchors, 4)
    assert first.targets[0] == 8 and set(first.targets) == {6, 7, 8} and first.neighbours == ()
    done = set(first.targets)
    for one in later:
        assert max(one.targets) == min(done) - 1, "goes on beside what is finished"
        assert min(done) in one.neighbours and one.anchors == (0,)
        done |= set(one.targets)


def test_neighbours_are_those_that_share_pixels() -> None:
    # Two far walls of views: the second group has nothing in common with the first.
    targets = batch([close(0.05 * index) for index in range(4)] + [close(20 + 0.05 * index) for index in range(4)])
    first, second = plan_passes(targets, batch([close(0.0)]), 5)
    assert set(first.targets) == {0, 1, 2, 3} and set(second.targets) == {4, 5, 6, 7}
    assert second.neighbours == (), "frames are not wasted on views that show nothing of it"


def test_of_two_equal_neighbours_one_is_shown() -> None:
    shared = torch.eye(6, dtype=torch.float64)
    shared[:4, :4] = 0.9
    shared[4:, :4] = torch.tensor([0.8, 0.8, 0.8, 0.0])
    shared[4:, 3] = 0.5
    anchored = torch.linspace(0.9, 0.1, 6, dtype=torch.float64)[:, None]
    first, second = planned(shared, anchored, 5)
    assert first.targets == (0, 1, 2, 3)
    assert second.targets == (4, 5) and second.neighbours == (0,), "3 shows nothing that 0 does not show"


def test_few_frames_keep_the_anchors_that_show_most_together() -> None:
    # Two of three anchors show the same half of the pass.
    anchored = torch.tensor([[0.9, 0.8, 0.0], [0.9, 0.8, 0.0], [0.0, 0.0, 0.7], [0.0, 0.0, 0.7]], dtype=torch.float64)
    shared = torch.full((4, 4), 0.5, dtype=torch.float64)
    assert planned(shared, anchored, 6) == [RefinePass((0, 1, 2, 3), (), (0, 2))]
    assert planned(shared, anchored, 5)[0].anchors == (0,), "a third of the pass at most"
    assert all(len(one.anchors) == 1 and len(one.targets) == 1 for one in planned(shared, anchored, 2))


def test_anchors_use_the_room_that_targets_leave() -> None:
    alike = torch.full((2, 9), 0.8, dtype=torch.float64)
    alike[:, 8] = 0.9
    pair = torch.eye(2, dtype=torch.float64)
    assert planned(pair, alike, 8) == [RefinePass((0, 1), (), (0, 1, 2, 3, 4, 8))]
    many = torch.full((20, 2), 0.8, dtype=torch.float64)
    assert all(one.anchors == (0, 1) for one in planned(torch.eye(20, dtype=torch.float64), many, 18))
