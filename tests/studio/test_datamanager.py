"""Photographs that can be held out, and injected views that are no photographs."""

from __future__ import annotations

from typing import Any

import pytest

from closeup_ns.studio.datamanager import CloseupDatamanager
from closeup_ns.studio.trainer import CloseupTrainer
from tests.tiny import an_injected_view


@pytest.fixture
def data(trainer: CloseupTrainer) -> CloseupDatamanager:
    return trainer.pipeline.datamanager


def drawn(data: CloseupDatamanager, count: int) -> tuple[list[int], list[Any]]:
    """Indices of photographs, and targets of injected views, of ``count`` steps."""
    photographs, injected = [], []
    for step in range(count):
        camera, batch = data.next_train(step)
        if "injected" in batch:
            injected.append(batch["injected"])
            assert not camera.metadata or "cam_idx" not in camera.metadata
            assert batch["image"] is batch["injected"].image
        else:
            photographs.append(camera.metadata["cam_idx"])
    return photographs, injected


def test_photographs_held_out_are_never_drawn_until_they_are_released(data: CloseupDatamanager) -> None:
    drawn(data, 3)
    data.hold_out([4, 7])
    assert set(drawn(data, 60)[0]) == set(range(10)) - {4, 7}
    data.hold_out([])
    photographs, _ = drawn(data, 50)
    assert sorted(photographs) == sorted([*range(10)] * 5)


def test_injected_views_come_as_often_as_they_should(data: CloseupDatamanager) -> None:
    current = [an_injected_view(data.train_view(index), 2, seed=index) for index in (0, 1)]
    earlier = [an_injected_view(data.train_view(index), 1, seed=index) for index in (2, 3, 4)]
    data.injected, data.current_round = current + earlier, 2
    assert drawn(data, 200)[1] == []  # the probability is still 0
    data.injected_probability = 0.4
    photographs, injected = drawn(data, 2000)
    assert len(injected) / 2000 == pytest.approx(0.4, abs=0.04)
    ours = {id(view.target): view for view in current + earlier}
    share = sum(ours[id(target)].round_index == 2 for target in injected) / len(injected)
    assert share == pytest.approx(0.7, abs=0.06)
    assert {id(target) for target in injected} == set(ours)
    counts = [photographs.count(index) for index in range(10)]
    assert max(counts) - min(counts) <= 1  # photographs take turns as before


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_alone_is_all_there_is_and_its_densifying_mark_is_handed_on(
    data: CloseupDatamanager, number: int
) -> None:
    data.current_round, data.injected_probability = number, 1.0
    for densifies in (True, False):
        data.injected = [an_injected_view(data.train_view(0), 1, densifies=densifies)]
        assert data.next_train(0)[1]["densifies"] is densifies
    photographs, injected = drawn(data, 20)
    assert photographs == [] and len(injected) == 20
