"""The viewer's panel on a real ns-viewer and in a real ns-train, driven through viser's websocket as a browser does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.integration.browserless import Browser, browsing, pick
from tests.integration.runs import Run, run_of, train_arguments

pytestmark = pytest.mark.integration


def looks(browser: Browser, run: Run) -> np.ndarray:
    """Put the camera where an anchor of the first round is; gives back the target."""
    plan = run.json("round_1", "plan.json")["plans"][0]
    browser.look(np.eye(4), away=3.0)
    browser.wait(lambda: browser.moves, "the first view of whoever comes")
    expected = pytest.approx(plan["radius"] * plan["zoom_total"], rel=0.5)
    browser.wait(lambda: browser.distance_to(np.array(plan["target"])) == expected, "the photographs' distance")
    browser.look(np.array(plan["anchors"][0]["view"]["c2w"]), away=3.0)
    browser.wait(lambda: browser.frames, "a frame")
    return np.array(plan["target"])


def test_a_finished_run_is_seen_and_steered(finished: Run, capture: Path, tmp_path: Path) -> None:
    with browsing("ns-viewer", "--load-config", finished.config, cwd=tmp_path) as browser:
        planned = looks(browser, finished)
        browser.wait_for_text("**Target**")
        sees_the_rounds(browser, finished)
        takes_clicks(browser)
        comes_closer(browser)
        shows_other_things(browser)
        saves_a_path(browser, capture)
        assert browser.element("Run the next round from here")["disabled"] and planned.shape == (3,)
        browser.wait_for_text("Only while training")


def sees_the_rounds(browser: Browser, run: Run) -> None:
    browser.wait(lambda: "/closeup/round_2/frontier/t0_frontier_00" in browser.nodes, "the second round's frontier")
    names = run.json("round_1", "plan.json")["plans"][0]
    cameras = [node for node in browser.nodes if node.startswith("/closeup/round_1/")]
    assert len(cameras) == sum(len(names[kind]) for kind in ("anchors", "updates", "frontier"))
    assert sum(node.startswith("/closeup/known/") for node in browser.nodes) == 10
    assert browser.nodes[cameras[-1]]["color"] == (45 << 16) + (110 << 8) + 255
    name = next(node for node in cameras if "update" in node)
    for chosen, visible in (("all rounds", True), ("round 2", False), ("all rounds", True)):
        browser.set("Round", chosen)
        browser.wait(lambda visible=visible: browser.nodes[name].get("visible") is visible, f"round 1, {chosen}")
    browser.click_node(name)
    text = browser.wait_for_text("data:image/jpeg")
    assert "round 1, to be updated" in text and "accepted" in text
    where = np.array(names["updates"][0]["c2w"])[:3, 3]
    browser.wait(lambda: browser.distance_to(where) < 1e-3, "the camera to jump")


def takes_clicks(browser: Browser) -> None:
    before = browser.target()
    pick(browser, 0.4, 0.45)
    browser.wait(lambda: browser.target() != before, "another target")
    assert "reliability" in browser.texts() and "/closeup/target" in browser.nodes
    away = np.eye(4)
    away[:3, 3] = [500.0, 0.0, 0.0]
    browser.look(away, away=1.0)
    pick(browser, 0.5, 0.5)
    browser.wait_for_text("empty sky")


def comes_closer(browser: Browser) -> None:
    target = np.array([float(value) for value in browser.target().split(",")])
    away = float(browser.texts().split("from the photographs that see it")[0].split()[-1])
    browser.set("Closer", 1.0)
    browser.wait(lambda: abs(browser.distance_to(target) / (away / 3) - 1) < 0.05, "the camera to come closer")
    browser.send("ViewerCameraMessage", **browser.camera)  # a browser tells where it went
    browser.wait_for_text("**3.00x**")


def shows_other_things(browser: Browser) -> None:
    frames, plain = browser.frames, browser.frame
    browser.set("reliable pixels", True)
    browser.wait_for_text("measured at 160 x 120 pixels from 10 photographs")
    browser.wait(lambda: browser.frames > frames and browser.frame != plain, "a frame with the mask")
    browser.set("reliable pixels", False)
    frames = browser.frames
    browser.set("Model", "base | refined")
    browser.wait(lambda: browser.frames > frames, "a frame of both models")


def saves_a_path(browser: Browser, capture: Path) -> None:
    file = capture / "camera_paths" / "closeup.json"
    try:
        browser.press("Save camera path")
        browser.wait_for_text("Saved ")
        content = json.loads(file.read_text())
        assert len(content["camera_path"]) == 240 and content["closeup"]["zoom"] > 3
    finally:
        shutil.rmtree(file.parent, ignore_errors=True)


def test_the_next_round_starts_when_it_is_asked_for(capture: Path, tmp_path: Path) -> None:
    """A run that would take an hour, and has no rounds yet; the button starts the first at once."""
    arguments = train_arguments(
        capture, tmp_path, vis="viewer", pipeline__schedule__base_steps=100_000, pipeline__schedule__rounds=1
    )
    run = run_of(tmp_path)
    with browsing("ns-train", *arguments, cwd=tmp_path) as browser:
        c2w = np.eye(4)
        browser.look(c2w, away=3.0)
        browser.wait_for_text("no rounds yet")
        browser.wait_for_text("Base phase: step")
        browser.press("Run the next round from here")
        browser.wait(lambda: (run.rounds / "schedule.json").exists(), "the changed schedule")
        assert run.json("schedule.json")["base_steps"] < 100_000
        browser.wait_for_text("All 1 rounds are over")
        assert run.json("round_1", "report.json")["round"] == 1
        browser.wait(lambda: any(node.startswith("/closeup/round_1/") for node in browser.nodes), "the round's cameras")
        browser.press("Run the next round from here")  # and one more, after the end
        browser.wait(lambda: (run.rounds / "round_2" / "report.json").exists(), "the second round's report")
