"""The map against geometry: bearings as from above, rings at their distances, every camera once."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from closeup_ns.planning.plan import KnownView
from closeup_ns.report.plan_map import CENTRE, PlanMap, cameras_of, plan_map
from tests.report.made_up import a_plan, camera, known_views

KNOWN = known_views()


def drawing(number: int = 1) -> PlanMap:
    return plan_map(a_plan(number), KNOWN)


def marks(drawn: PlanMap) -> dict[str, tuple[float, float, float, float]]:
    """By title: the line from the camera along its view, relative to the centre, y up."""
    return {m.title: (m.x - CENTRE, CENTRE - m.y, m.x2 - CENTRE, CENTRE - m.y2) for m in drawn.marks}


def test_every_camera_is_there_once_and_anchors_are_no_known_views() -> None:
    kinds = [camera.kind for camera in cameras_of(a_plan(1), KNOWN)]
    assert sorted(kinds) == ["anchor"] * 2 + ["frontier"] * 2 + ["known"] * 3 + ["update"]
    assert len(marks(drawing())) == 8
    assert drawing().counts_text == "3 known, 2 anchors, 1 to-be-updated, 2 frontier"


def test_bearings_are_those_seen_from_above_and_cameras_look_at_the_target() -> None:
    found = marks(drawing())
    update = next(place for title, place in found.items() if "update 0" in title)
    assert math.degrees(math.atan2(update[1], update[0])) == pytest.approx(30, abs=0.5)
    for x1, y1, x2, y2 in found.values():
        assert math.hypot(x2, y2) < math.hypot(x1, y1)


def test_equal_steps_of_zoom_are_equal_steps_on_the_map() -> None:
    """Round 3: rings at 1, 3, 9 and 27 times closer, and the frontier on the last."""
    drawn = drawing(3)
    assert [ring.zoom for ring in drawn.rings] == [1, 3, 9, 27]
    steps = [a.radius - b.radius for a, b in itertools.pairwise(drawn.rings)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    frontier = [place for title, place in marks(drawn).items() if "frontier" in title]
    assert [math.hypot(*place[:2]) for place in frontier] == pytest.approx([drawn.rings[-1].radius] * 2, abs=0.2)


def test_the_rings_labels_lie_beside_the_cameras_of_a_forward_facing_capture() -> None:
    plan = replace(
        a_plan(1),
        frontier=[camera(4.0 / 3, bearing) for bearing in (-3.0, 3.0)],
        updates=[camera(2.0, 1.0)],
        anchors=[KnownView("a", camera(4.0, 5.0), True)],
    )
    drawn = plan_map(plan, [])
    labels = [(ring.x - CENTRE, CENTRE - ring.y) for ring in drawn.rings]
    places = [place[:2] for place in marks(drawn).values()]
    assert len(labels) == 2 and len(places) == 4
    assert min(math.dist(label, place) for label in labels for place in places) > 14


def test_a_camera_above_the_target_or_at_it_has_a_place() -> None:
    at_it = camera(1.0, 0.0)
    at_it.c2w[:3, 3] = torch.tensor(a_plan(1).target)
    drawn = plan_map(replace(a_plan(1), updates=[camera(1.0, 0.0, rise=1.0)], frontier=[at_it]), KNOWN)
    assert all(math.isfinite(value) for mark in drawn.marks for value in (mark.x, mark.y, mark.x2, mark.y2))
