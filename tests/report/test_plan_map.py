"""The map against geometry: bearings as from above, rings at their distances, every camera once."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from closeup_ns.report.plan_map import SIZE, cameras_of, plan_map
from tests.report.made_up import a_plan, camera, known_views

KNOWN = [view.to_dict() for view in known_views()]


def drawing(number: int = 1) -> ElementTree.Element:
    found = re.search(r"<svg.*?</svg>", plan_map(a_plan(number).to_dict(), KNOWN, "Plan"), re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def marks(svg: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    """By title: the line from the camera along its view, relative to the centre, y up."""
    result = {}
    for group in svg.iter("g"):
        if (group.get("class") or "").startswith("camera"):
            line, title = group.find("line"), group.find("title")
            assert line is not None and title is not None and title.text
            x1, y1, x2, y2 = (float(line.get(name) or "nan") for name in ("x1", "y1", "x2", "y2"))
            result[title.text] = (x1 - SIZE / 2, SIZE / 2 - y1, x2 - SIZE / 2, SIZE / 2 - y2)
    return result


def test_every_camera_is_there_once_and_anchors_are_no_known_views() -> None:
    kinds = [camera.kind for camera in cameras_of(a_plan(1).to_dict(), KNOWN)]
    assert sorted(kinds) == ["anchor"] * 2 + ["frontier"] * 2 + ["known"] * 3 + ["update"]
    assert len(marks(drawing())) == 8


def test_bearings_are_those_seen_from_above_and_cameras_look_at_the_target() -> None:
    found = marks(drawing())
    update = next(place for title, place in found.items() if "update 0" in title)
    assert math.degrees(math.atan2(update[1], update[0])) == pytest.approx(30, abs=0.5)
    for x1, y1, x2, y2 in found.values():
        assert math.hypot(x2, y2) < math.hypot(x1, y1)


def test_equal_steps_of_zoom_are_equal_steps_on_the_map() -> None:
    """Round 3: rings at 1, 3, 9 and 27 times closer, and the frontier on the last."""
    svg = drawing(3)
    rings = [float(c.get("r") or "nan") for g in svg.iter("g") if g.get("class") == "ring" for c in g.iter("circle")]
    steps = [a - b for a, b in itertools.pairwise(rings)]
    assert len(rings) == 4 and steps == pytest.approx([steps[0]] * 3, abs=0.2)
    frontier = [place for title, place in marks(svg).items() if "frontier" in title]
    assert [math.hypot(*place[:2]) for place in frontier] == pytest.approx([rings[-1]] * 2, abs=0.2)


def test_the_rings_labels_lie_beside_the_cameras_of_a_forward_facing_capture() -> None:
    plan = a_plan(1).to_dict()
    plan["frontier"] = [camera(4.0 / 3, bearing).to_dict() for bearing in (-3.0, 3.0)]
    plan["updates"] = [camera(2.0, 1.0).to_dict()]
    plan["anchors"] = [{"name": "a", "view": camera(4.0, 5.0).to_dict(), "real": True}]
    svg = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", plan_map(plan, [], "Plan"), re.DOTALL)[0])
    labels = [(float(t.get("x") or "nan") - SIZE / 2, SIZE / 2 - float(t.get("y") or "nan")) for t in svg.iter("text")]
    places = [place[:2] for place in marks(svg).values()]
    assert len(labels) == 2 and len(places) == 4
    assert min(math.dist(label, place) for label in labels for place in places) > 14


def test_a_camera_above_the_target_or_at_it_has_a_place() -> None:
    plan = a_plan(1).to_dict()
    plan["updates"] = [camera(1.0, 0.0, rise=1.0).to_dict()]
    plan["frontier"][0]["c2w"] = [[*row[:3], at] for row, at in zip(plan["frontier"][0]["c2w"], [*plan["target"], 1.0])]
    assert "nan" not in plan_map(plan, KNOWN, "Plan")


def test_names_are_escaped() -> None:
    known = [{**KNOWN[-1], "name": "<x>&"}]
    assert "&lt;x&gt;&amp;" in plan_map(a_plan(1).to_dict(), known, "Plan")
