"""The panel's controller on a real viser server: nothing that a person does waits for a render, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.viewer.utils import CameraState

from closeup_ns.planning.target import Target
from closeup_ns.rounds.next_round import NextRound
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.frustums import known_marks
from closeup_ns.viewer.panel import BASE, REFINED, VIEWPORT
from closeup_ns.views.view import aim_at
from tests.integration.browserless import pick
from tests.scenes import analytic_renderer
from tests.stored import a_view
from tests.viewer.attached import VIEWS, Attached, attached
from tests.viewer.test_frustums import a_plan

TARGET = Target(torch.tensor([0.0, 0.0, 4.0]), 4.0, 0.9, "made up")
WALL = analytic_renderer(boxes=())
PATIENCE = 240.0


def returns(action: Callable[[], Any]) -> bool:
    """Whether ``action`` comes back by itself."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return not thread.is_alive()


def test_no_callback_waits_for_a_render(tmp_path: Path) -> None:
    """All renders wait, so does the worker, and training holds its lock: a callback that needs one hangs."""
    with attached(tmp_path, WALL, TARGET) as at:
        control = at.control
        client = next(iter(control.viser_server.get_clients().values()))
        at.browser.wait_for_text("**Target**")
        control.panel.start.value = VIEWPORT
        control.panel.reliable.value, control.frames.evidence = True, ([], [])
        mark = known_marks(["a.png"], VIEWS[:1], 4.0)[0]
        state = CameraState(0.9, 4 / 3, torch.eye(4)[:3], CameraType.PERSPECTIVE)
        (machine,) = at.machines.values()
        click = cast(Any, SimpleNamespace(screen_pos=[(0.5, 0.5)], client=client))
        calls: dict[str, Callable[[], Any]] = {
            "pick": control.pick,
            "come_closer": lambda: control.come_closer(1.0, client),
            "filter_cameras": control.filter_cameras,
            "choose_model": lambda: control.choose_model(BASE),
            "toggle_overlay": control.toggle_overlay,
            "run_round": control.run_round,
            "save_path": lambda: control.save_path(client),
            "a click": lambda: control._clicked(click),
            "a click on a frustum": lambda: control._show_camera(mark, client),
            "a frame whose overlay is not measured yet": lambda: machine._render_img(state),
        }
        at.may_render.clear()
        begun = threading.Event()

        def wait() -> None:
            begun.set()
            at.may_render.wait(PATIENCE)

        control.worker.submit("wait", wait)
        assert begun.wait(PATIENCE)
        with at.lock:
            hung = [name for name, call in calls.items() if not returns(call)]
        assert hung == []
        at.may_render.set()
        assert "Saved " in at.browser.wait_for_text("Saved ")  # what was asked for is done when its turn comes


def test_without_a_target_the_panel_says_what_to_do(tmp_path: Path) -> None:
    with attached(tmp_path, analytic_renderer(wall=None, boxes=())) as at:
        assert "No target yet." in at.browser.texts() and "Only while training" in at.browser.texts()
        pick(at.browser, 0.5, 0.5)
        at.browser.wait_for_text("⚠ a click on empty sky")
        assert "No target yet." in at.browser.texts()
        at.browser.press("Save camera path")
        at.browser.wait_for_text("there is no target for a path: set one by a click first")
        at.browser.set("Closer", 1.0)
        at.browser.wait_for_text("There is no target to come closer to")
        at.machines.clear()  # the client has just left: viser still lists it, nerfstudio has dropped its render thread
        at.control.toggle_overlay()
        at.control.choose_model(REFINED)


def behind(at: Attached) -> None:
    """Turn the client's camera away from the target."""
    away = aim_at(VIEWS[0], torch.tensor([0.0, 0.0, -4.0]))
    at.browser.look(away.c2w.numpy(), away=3.0)
    client = next(iter(at.control.viser_server.get_clients().values()))
    at.browser.wait(lambda: np.allclose(client.camera.position, away.position.numpy() * 10, atol=1e-3), "the turn")
    at.browser.wait(lambda: client.camera.look_at[2] < client.camera.position[2], "the turn")


def test_a_target_behind_the_camera_is_said(tmp_path: Path) -> None:
    with attached(tmp_path, WALL, TARGET) as at:
        at.browser.wait_for_text("**Target**")
        behind(at)
        at.browser.set("Start from", VIEWPORT)
        at.browser.press_for_text("Save camera path", "⚠ the target is behind the camera")
        at.browser.set("Closer", 1.0)
        at.browser.wait_for_text("The target was behind the camera: turned to it.")


@pytest.mark.parametrize("each, text", [(0, "This method trains without rounds"), (10, "another one needs a new run")])
def test_what_is_said_about_the_next_round_stays(tmp_path: Path, each: int, text: str) -> None:
    """The panel is refreshed every second: progress must not take the place of a reason or a warning."""
    rounds = SimpleNamespace(
        next_round=NextRound(), targets=[], stage="", schedule=ScheduleConfig(100, 1, each), next_step=7
    )
    trainer = cast(Any, SimpleNamespace(training_state="training"))
    with attached(tmp_path, WALL, TARGET, rounds, trainer) as at:
        at.control._chosen = True
        at.browser.wait_for_text("Base phase: step 7")
        if each:  # otherwise the button cannot be pressed
            at.control.run_round()
        rounds.next_step = 8
        at.browser.wait_for_text("Base phase: step 8")
        assert text in at.browser.texts()


def test_a_damaged_target_is_said_and_costs_nothing_else(tmp_path: Path) -> None:
    """`attached` waits for the first view and for what is said of the rounds; another target can be set.

    Each kind of damage: tests/rounds/test_store_damage.py.
    """
    saved = tmp_path / "run" / "rounds" / "targets.json"
    saved.parent.mkdir(parents=True)
    saved.write_text('{"targets": [{}]}')
    with attached(tmp_path, WALL) as at:
        assert "The run's target cannot be read: set one by a click." in at.browser.texts()
        assert "targets.json" in at.browser.texts() and "⚠ refresh" not in at.browser.texts()
        pick(at.browser, 0.5, 0.5)
        at.browser.wait_for_text("**Target**")


def test_a_damaged_view_of_a_round_is_said_at_a_click_and_all_cameras_are_drawn(tmp_path: Path) -> None:
    store = RoundStore(tmp_path / "run" / "rounds")
    for number in (1, 2):
        store.save_plan(number, StoredPlan([a_plan(number)]))
        for name in ("t0_update_00", "t0_update_01"):
            store.save_view(number, name, a_view(number))
    store.picture(1, "t0_update_00").write_bytes(b"no image")
    (store.folder(2) / "views" / "t0_update_00.json").write_text("{}")
    with attached(tmp_path, WALL, TARGET) as at:
        nodes = [name for name in at.browser.nodes if name.startswith("/closeup/round_")]
        assert len(nodes) == 8, nodes
        for number, said in ((1, "images/t0_update_00.png"), (2, "round_2/views/t0_update_00.json")):
            at.browser.click_node(next(name for name in nodes if name.endswith(f"round_{number}/update/t0_update_00")))
            at.browser.wait_for_text(f"round {number}, to be updated 0")
            at.browser.wait_for_text(f"{said} cannot be read")
