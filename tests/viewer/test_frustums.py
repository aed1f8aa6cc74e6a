"""Which cameras are shown, read from a store that the store itself has written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from closeup_ns.errors import RoundStorageError
from closeup_ns.paths.geometry import vertical_fov
from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.frustums import frustum_scale, round_marks, state_of, thumbnail
from tests.scenes import facing_views
from tests.stored import a_view

VIEWS = facing_views(6, dtype=torch.float32)


def a_plan(number: int = 1) -> RoundPlan:
    return RoundPlan(
        round_index=number,
        zoom_total=3.0**number,
        radius=1.3,
        previous_radius=4.0,
        target=[0.0, 0.0, 4.0],
        anchors=[KnownView("train/a.png", VIEWS[0], True)],
        anchor_coverage=[0.5],
        frontier=[VIEWS[1]],
        frontier_seeds=["train/a.png"],
        updates=VIEWS[2:4],
        update_weights=[1.0, 0.5],
        candidates=[],
    )


@pytest.fixture
def store(tmp_path: Path) -> RoundStore:
    made = RoundStore(tmp_path / "rounds")
    made.save_plan(1, StoredPlan([a_plan()]))
    made.save_view(1, "t0_update_00", a_view(0))
    return made


def test_a_rounds_cameras_have_the_papers_kinds_and_their_images(store: RoundStore) -> None:
    marks = round_marks(store, 1)
    assert [mark.kind for mark in marks] == ["anchor", "update", "update", "frontier"]
    assert len({mark.path for mark in marks}) == len(marks)
    assert all(mark.path.startswith("/closeup/round_1/") and "round 1" in mark.title for mark in marks)
    refined = [mark for mark in marks if mark.picture is not None]
    assert [mark.path.split("/")[-1] for mark in refined] == ["t0_update_00"]
    assert refined[0].note == "accepted: because"
    first = marks[1]
    assert first.distance == pytest.approx(float((first.view.position - torch.tensor([0.0, 0.0, 4.0])).norm()))


def test_a_frustum_is_as_long_as_its_share_of_the_distance(store: RoundStore) -> None:
    """Against viser's client: x, y, z = tan(fov/2) aspect, tan(fov/2), 1, made so that x y z / 3 = scale cubed."""
    anchor, mark = round_marks(store, 1)[:2]
    for one, expected in ((mark, 0.1), (anchor, 0.13)):
        y = math.tan(vertical_fov(one.view) / 2)
        x = y * one.view.width / one.view.height
        length = frustum_scale(one, 0.1) / (x * y * 1.0 / 3.0) ** (1 / 3)
        assert length == pytest.approx(expected * one.distance)


def test_the_image_is_the_refined_one_made_small(store: RoundStore) -> None:
    picture = round_marks(store, 1)[1].picture
    assert picture is not None
    small = thumbnail(picture, 10)
    assert small.shape == (7, 10, 3) and small.dtype == np.uint8
    assert small.mean() == pytest.approx(float(store.load_view(1, "t0_update_00").image.mean()) * 255, abs=2.0)
    picture.write_bytes(b"no image")
    with pytest.raises(RoundStorageError, match=picture.name):
        thumbnail(picture, 10)


def test_the_state_changes_with_each_view_and_at_the_end(store: RoundStore) -> None:
    states = [state_of(store)]
    store.save_view(1, "t0_update_01", a_view(1))
    states.append(state_of(store))
    store.finish_round(1, {"round": 1})
    states.append(state_of(store))
    assert states == [((1, 1, False),), ((1, 2, False),), ((1, 2, True),)]


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"decision": 3}'])
def test_a_damaged_view_costs_its_own_picture_alone(store: RoundStore, content: str) -> None:
    (store.folder(1) / "views" / "t0_update_00.json").write_text(content)
    marks = round_marks(store, 1)
    assert marks[1].picture is None and "t0_update_00.json cannot be read" in marks[1].note
    assert [mark.note for mark in marks if mark.kind != "anchor"][1:] == ["not refined"] * 2
