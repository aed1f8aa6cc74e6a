"""The viewer's panel on a real ns-viewer and in a real ns-train, driven through viser's websocket as a browser does.

What a person sees of it is tested in test_viewer_browser.py, each of its parts in tests/viewer.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration.browserless import Browser, browsing, pick
from tests.integration.commands import TIMEOUT, forked
from tests.integration.runs import Run, run_of, train_arguments
from tests.integration.serving import free_port, wait_until_it_answers
from tests.integration.watched import IMPORTED
from tests.refine.see3d.tiny import write_tiny_weights

pytestmark = pytest.mark.integration


def test_two_people_see_a_finished_run_and_one_target(finished: Run, tmp_path: Path) -> None:
    """One picks; the other sees it, and stays when the first has left."""
    with browsing("ns-viewer", "--load-config", finished.config, cwd=tmp_path) as first:
        second = Browser(first.port)
        plan = finished.json("round_1", "plan.json")["plans"][0]
        for browser in (first, second):
            browser.look(np.eye(4), away=3.0)
            browser.wait(lambda browser=browser: browser.frames and browser.moves, "a frame of the first view")
            expected = pytest.approx(plan["radius"] * plan["zoom_total"], rel=0.5)
            distance = browser.distance_to(np.array(plan["target"]))
            assert distance == expected, "the first view is from the photographs' distance"
            browser.wait_for_text("**Target**")
        sees_the_base_model(first)
        before = [browser.target() for browser in (first, second)]
        assert before[0] == before[1]
        pick(first, 0.4, 0.45)
        for browser, old in zip((first, second), before, strict=True):
            browser.wait(lambda browser=browser, old=old: browser.target() != old, "another target")
        assert first.target() == second.target()
        sees_the_rounds(first, plan)
        comes_closer(first)
        first.close()
        chosen = second.target()
        pick(second, 0.6, 0.5)
        second.wait(lambda: second.target() != chosen, "a target of the one who stayed")
        assert second.element("Run the next round from here")["disabled"] and "Only while training" in second.texts()
        second.close()


def sees_the_rounds(browser: Browser, plan: dict) -> None:
    browser.wait(lambda: "/closeup/round_2/frontier/t0_frontier_00" in browser.nodes, "the second round's frontier")
    cameras = [node for node in browser.nodes if node.startswith("/closeup/round_1/")]
    assert len(cameras) == sum(len(plan[kind]) for kind in ("anchors", "updates", "frontier"))
    assert sum(node.startswith("/closeup/known/") for node in browser.nodes) == 10
    assert browser.nodes[cameras[-1]]["color"] == (45 << 16) + (110 << 8) + 255
    name = next(node for node in cameras if "update" in node)
    for chosen, visible in (("all rounds", True), ("round 2", False), ("all rounds", True)):
        browser.set("Round", chosen)
        browser.wait(lambda visible=visible: browser.nodes[name].get("visible") is visible, f"round 1, {chosen}")
    browser.click_node(name)
    text = browser.wait_for_text("data:image/jpeg")
    assert "round 1, to be updated" in text and "accepted" in text
    where = np.array(plan["updates"][0]["c2w"])[:3, 3]
    browser.wait(lambda: browser.distance_to(where) < 1e-3, "the camera to jump")


def sees_the_base_model(browser: Browser) -> None:
    refined, frames = browser.frame, browser.frames
    browser.set("Model", "base")
    browser.wait(lambda: browser.frames > frames and browser.frame != refined, "a frame of the base model")
    browser.set("Model", "refined")


def comes_closer(browser: Browser) -> None:
    target = np.array([float(value) for value in browser.target().split(",")])
    away = float(browser.texts().split("from the photographs that see it")[0].split()[-1])
    browser.set("Closer", 1.0)
    browser.wait(lambda: abs(browser.distance_to(target) / (away / 3) - 1) < 0.05, "the camera to come closer")
    browser.send("ViewerCameraMessage", **browser.camera)  # a browser tells where it went
    browser.wait_for_text("**3.00x**")


def test_rounds_start_when_they_are_asked_for_and_load_a_diffusion_model_then(capture: Path, tmp_path: Path) -> None:
    """A run that would take an hour. A target, overlays, a path: no diffusion model's code before the button."""
    arguments = train_arguments(
        capture, tmp_path, vis="viewer", pipeline__schedule__base_steps=100_000, pipeline__schedule__rounds=1,
        pipeline__refiner__see3d__weights=write_tiny_weights(tmp_path / "weights", torch.Generator(), ["sparse"]),
        pipeline__refiner__kind="see3d", pipeline__refiner__see3d__steps=2,
    )  # fmt: skip
    run = run_of(tmp_path)
    with browsing("watched-train", *arguments, cwd=tmp_path) as browser:
        log = next(tmp_path.glob("watched-train-*.log"))
        browser.look(np.eye(4), away=3.0)
        browser.wait_for_text("no rounds yet")
        browser.wait_for_text("Base phase: step")
        browser.wait(lambda: browser.moves, "the first view of whoever comes")  # before it, a click meets empty sky

        def aimed() -> bool:
            pick(browser, 0.5, 0.5)
            time.sleep(1)
            return "**Target**" in browser.texts()

        browser.wait(aimed, "a target: at first the model is hardly opaque, and one clicks again")
        for overlay in ("reliable pixels", "real or generated"):
            browser.set(overlay, True)
        browser.wait_for_text("measured at")
        browser.set("Model", "base | refined")
        browser.wait_for_text("the base model is not here")
        browser.set("Name", "no_diffusion")
        browser.press("Save camera path")
        browser.wait_for_text("no_diffusion.json to")
        (capture / "camera_paths" / "no_diffusion.json").unlink()
        assert IMPORTED not in log.read_text()
        browser.press("Run the next round from here")
        browser.wait(lambda: IMPORTED in log.read_text(), "the refiner")
        assert run.json("schedule.json")["base_steps"] < 100_000
        browser.wait_for_text("All 1 rounds are over")
        assert run.json("round_1", "report.json")["round"] == 1
        browser.wait(lambda: any(node.startswith("/closeup/round_1/") for node in browser.nodes), "the round's cameras")
        browser.press("Run the next round from here")  # and one more, after the end
        browser.wait(lambda: (run.rounds / "round_2" / "report.json").exists(), "the second round's report")
        assert run.json("schedule.json")["rounds"] == 2


def test_a_run_without_rounds_says_so_and_ends_by_itself(capture: Path, tmp_path: Path) -> None:
    """`closeup-splatfacto`, paused until somebody has looked at it: it may be over in a second."""
    port, method = free_port(), "closeup-splatfacto"
    arguments = train_arguments(
        capture, tmp_path, method=method, vis="viewer+tensorboard", viewer__quit_on_train_completion=True,
        viewer__websocket_port=port, viewer__websocket_host="127.0.0.1", pipeline__schedule__base_steps=40,
        pipeline__schedule__rounds=0, pipeline__schedule__round_steps=0, start_paused=True,
    )  # fmt: skip
    with forked("ns-train", *arguments, cwd=tmp_path) as (process, log):
        wait_until_it_answers(port, process, log)
        browser = Browser(port)
        browser.look(np.eye(4), away=3.0)
        for words in ("No target yet.", "This run has no rounds yet.", "Base phase: step", "trains without rounds"):
            browser.wait_for_text(words)
        assert browser.element("Run the next round from here")["disabled"]
        browser.press("Resume Training")
        process.join(TIMEOUT)
        browser.close()
        text = log.read_text(errors="replace")
        assert process.exitcode == 0 and "Traceback" not in text, text
    run = run_of(tmp_path, method=method)
    assert run.checkpoints() and list(run.folder.glob("events.out.tfevents*"))
