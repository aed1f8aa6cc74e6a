"""A browser's side of viser's websocket, without a browser: sees the panel's elements, clicks, moves the camera."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import viser.transforms as vtf
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.serving import serving

PATIENCE = 240.0


class Browser:
    """One client of a running viewer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = connect(f"ws://127.0.0.1:{port}", max_size=None, open_timeout=600)
        self.elements: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.camera: dict[str, Any] = {}
        self.frames = self.moves = 0
        self.frame = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self.socket.close()
        self._reader.join()

    def _read(self) -> None:
        try:
            for raw in self.socket:
                decoded = msgspec.msgpack.decode(raw)
                for message in decoded if isinstance(decoded, list) else [decoded]:
                    self._take(message)
        except ConnectionClosed:
            return

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind.startswith("GuiAdd"):
            self._element(message["id"], message)
        elif kind == "GuiUpdateMessage":
            self._element(message["id"], message["updates"])
        elif kind == "SetSceneNodeVisibilityMessage":
            self._node(message["name"], {"visible": message["visible"]})
        elif kind == "SetCameraPositionMessage":
            self.camera["position"] = list(message["position"])
            self.moves += 1
        elif kind == "SetCameraLookAtMessage":
            self.camera["look_at"] = list(message["look_at"])
        elif kind == "BackgroundImageMessage":
            self.frame = bytes(message.get("rgb_bytes") or message.get("rgb_data") or b"")
            self.frames += 1
        elif "name" in message:
            self._node(message["name"], message)

    # New dictionaries, because the test goes through the old ones meanwhile.

    def _element(self, name: str, values: dict[str, Any]) -> None:
        self.elements = {**self.elements, name: {**self.elements.get(name, {}), **values}}

    def _node(self, name: str, values: dict[str, Any]) -> None:
        self.nodes = {**self.nodes, name: {**self.nodes.get(name, {}), **values}}

    def send(self, kind: str, **content: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def look(self, c2w: np.ndarray, away: float, fov: float = 0.9, aspect: float = 4 / 3) -> None:
        """Put the camera at an OpenCV camera-to-world pose of nerfstudio's world, orbiting what is ``away``."""
        position = c2w[:3, 3] * 10
        self.camera = {
            "wxyz": vtf.SO3.from_matrix(c2w[:3, :3]).wxyz.tolist(),
            "position": position.tolist(),
            "look_at": (position + c2w[:3, 2] * away * 10).tolist(),
            "up_direction": (-c2w[:3, 1]).tolist(),
            "fov": fov,
            "aspect": aspect,
        }
        self.send("ViewerCameraMessage", **self.camera)

    def element(self, label: str) -> dict[str, Any]:
        """The element with this label, once it is there."""
        found = self.wait(lambda: [e for e in self.elements.values() if e.get("label") == label], f"element {label!r}")
        return found[0]

    def set(self, label: str, value: Any) -> None:
        """Set an element; press it where it is a button."""
        element = self.element(label)
        self.send("GuiUpdateMessage", id=element["id"], updates={"value": value})

    def press(self, label: str) -> None:
        self.set(label, True)

    def press_for_text(self, label: str, part: str, again: float = 20.0) -> None:
        """Press, and as a person would once more where nothing is said: viser's last message once came late."""
        pressed = -math.inf

        def said() -> bool:
            nonlocal pressed
            if time.monotonic() > pressed + again:
                pressed = time.monotonic()
                self.press(label)
            return part in self.texts()

        self.wait(said, f"text {part!r}")

    def click(self, column: float, row: float) -> None:
        """A click in the scene, at shares of the viewport."""
        origin = self.camera["position"]
        self.send(
            "ScenePointerMessage", event_type="click", ray_origin=origin, ray_direction=[0.0, 0.0, 1.0],
            screen_pos=[[column, row]],
        )  # fmt: skip

    def click_node(self, name: str) -> None:
        zero = [0.0, 0.0, 0.0]
        self.send(
            "SceneNodeClickMessage", name=name, instance_index=None, ray_origin=zero, ray_direction=zero,
            screen_pos=[0.5, 0.5],
        )  # fmt: skip

    def texts(self) -> str:
        """Everything that Markdown elements say, as it is read: without what escapes a name and breaks a long one."""
        said = "\n".join(str(e.get("markdown", "")) for e in self.elements.values())
        return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", re.sub(r"</?span[^>]*>", "", said))

    def target(self) -> str:
        """Where the panel says that the target is."""
        return self.texts().split("**Target** (")[1].split(")")[0]

    def wait_for_text(self, part: str) -> str:
        return self.wait(lambda: self.texts() if part in self.texts() else "", f"text {part!r}")

    def wait(self, found: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            result = found()
            if result:
                return result
            time.sleep(0.05)
        raise AssertionError(f"waited {PATIENCE:.0f} s for {what}; the panel says:\n{self.texts()[:3000]}")

    def distance_to(self, point: np.ndarray) -> float:
        """Of the camera, in nerfstudio's world."""
        return math.dist(np.asarray(self.camera["position"]) / 10, point)


@contextmanager
def browsing(name: str, *arguments: object, cwd: Path) -> Iterator[Browser]:
    """A command with a viewer, and a client of it."""
    with serving(name, *arguments, cwd=cwd) as port:
        browser = Browser(port)
        try:
            yield browser
        finally:
            browser.close()


def pick(browser: Browser, column: float, row: float) -> None:
    browser.press("Set target by a click")
    browser.wait_for_text("Click on the object")
    browser.click(column, row)
