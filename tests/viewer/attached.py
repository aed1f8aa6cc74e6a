"""The panel on a real viser server, in this process, with a made-up scene and a stand-in for nerfstudio's viewer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
import viser

from closeup_ns.planning.target import Target
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.compatibility import start_without_build_server
from closeup_ns.viewer.control import CloseupViewerControl
from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View
from tests.integration.browserless import Browser
from tests.integration.serving import free_port
from tests.scenes import facing_views

VIEWS = facing_views(4, dtype=torch.float32)


@dataclass
class Attached:
    """What a test holds on to."""

    control: CloseupViewerControl
    browser: Browser
    lock: threading.Lock
    """nerfstudio's train_lock."""
    may_render: threading.Event
    """Cleared: every render waits."""
    machines: dict[int, Any]


@contextmanager
def attached(
    folder: Path, render: Renderer, target: Target | None = None, rounds: Any = None, trainer: Any = None
) -> Iterator[Attached]:
    """The panel of a run whose folder is empty but for the ``target``, with one client."""
    if target is not None:
        RoundStore(folder / "run" / "rounds").save_targets([target.to_dict()])
    may_render, lock = threading.Event(), threading.Lock()
    may_render.set()

    def patient(view: View) -> Rendered:
        assert may_render.wait(240)
        return render(view)

    control = CloseupViewerControl(cast(Any, _run(patient, rounds)))
    control.rounds = rounds
    port = free_port()
    start_without_build_server()
    server = viser.ViserServer(host="127.0.0.1", port=port, verbose=False)
    viewer = _viewer(server, folder, lock, trainer)
    server.on_client_connect(lambda client: viewer.render_statemachines.update({client.client_id: _machine()}))
    control._setup(cast(Any, viewer))
    browser = Browser(port)
    try:
        browser.look(VIEWS[0].c2w.numpy(), away=3.0)
        begun = RoundStore(folder / "run" / "rounds").rounds()
        browser.wait_for_text("Click on a frustum" if begun else "This run has no rounds yet.")
        browser.wait(lambda: browser.moves, "the first view")
        yield Attached(control, browser, lock, may_render, viewer.render_statemachines)
    finally:
        may_render.set()
        control.worker.stop()
        browser.close()
        server.stop()


def _run(render: Renderer, rounds: Any) -> SimpleNamespace:
    data = SimpleNamespace(photograph_names=lambda: ["a.png", "b.png", "c.png", "d.png"], train_views=lambda: VIEWS)
    schedule = rounds.schedule if rounds else SimpleNamespace(round_steps=1, base_steps=10)
    settings = SimpleNamespace(schedule=schedule, target=SimpleNamespace())
    model = SimpleNamespace(render_view=render, step=0)
    return SimpleNamespace(photographs=data, settings=settings, model=model, device="cpu")


def _viewer(server: viser.ViserServer, folder: Path, lock: threading.Lock, trainer: Any) -> SimpleNamespace:
    return SimpleNamespace(
        viser_server=server, log_filename=folder / "run" / "viewer_log.txt", datapath=folder / "data",
        stats_markdown=SimpleNamespace(order=0.0), render_statemachines={}, train_lock=lock, trainer=trainer,
        control_panel=SimpleNamespace(crop_viewport=False), hide_images=SimpleNamespace(visible=True), ready=True,
        get_camera_state=lambda client: None,
    )  # fmt: skip


def _machine() -> SimpleNamespace:
    frame = {"rgb": torch.zeros(12, 16, 3)}
    return SimpleNamespace(_render_img=lambda state: frame, state="low_static", action=lambda action: None)
