"""Headless Chromium for tests, driven by W3C WebDriver's JSON over HTTP: the standard library is enough.

Debian: apt-get install chromium chromium-driver. Where either is absent, `browser` skips the test and says so.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.serving import free_port

ARTEFACTS = Path(__file__).resolve().parents[1] / "test-artefacts"
"""Screenshots stay here (ignored by git)."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
WEBGL = (
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
)  # fmt: skip
"""What it takes besides for scenes in three dimensions: they are drawn by the processor."""
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The name that WebDriver gives to a reference to an element."""
PATIENCE = 240.0
"""Seconds for anything to happen: the machine may be busy."""


class Browser:
    """One window of a headless browser."""

    def __init__(self, session: str) -> None:
        self.session = session

    def open(self, url: str) -> None:
        """Load a page and wait until it has loaded."""
        _call("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns: the body of a function of ``arguments``."""
        return _call("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, script: str) -> None:
        """Click the middle of the element that a script returns."""
        _call("POST", f"{self.session}/element/{self.run(script)[ELEMENT]}/click", {})

    def type_into(self, keys: str, script: str, *arguments: Any) -> None:
        """Type into the element that a script returns."""
        element = self.run(script, *arguments)[ELEMENT]
        _call("POST", f"{self.session}/element/{element}/value", {"text": keys})

    def drag(self, script: str, start: float, end: float) -> None:
        """Drag with the mouse inside the element that a script returns, from one share of its width to another."""
        element = self.run(script)
        width = self.run("return arguments[0].getBoundingClientRect().width", element)
        places = [round((share - 0.5) * width) for share in (start, end)]
        moves = [{"type": "pointerMove", "origin": element, "x": x, "y": 0, "duration": 50} for x in places]
        self._mouse(moves[0], {"type": "pointerDown", "button": 0}, moves[1], {"type": "pointerUp", "button": 0})

    def click_at(self, x: float, y: float) -> None:
        """Press and release the mouse's button at a place in the window, in CSS pixels."""
        move, pause = _move(x, y), {"type": "pause", "duration": 50}
        self._mouse(move, {"type": "pointerDown", "button": 0}, pause, {"type": "pointerUp", "button": 0})

    def move_to(self, x: float, y: float) -> None:
        """Move the mouse there, in CSS pixels of the window."""
        self._mouse(_move(x, y))

    def _mouse(self, *steps: dict[str, Any]) -> None:
        actions = [{"type": "pointer", "id": "mouse", "actions": steps}]
        _call("POST", f"{self.session}/actions", {"actions": actions})

    def resize(self, width: int, height: int) -> None:
        """Size of the window, pixels."""
        _call("POST", f"{self.session}/window/rect", {"width": width, "height": height})

    def emulate(self, width: int, height: int) -> None:
        """A screen of that size, pixels: windows do not get as narrow as telephones. 0 x 0 ends it."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 0, "mobile": width > 0}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        _call("POST", f"{self.session}/goog/cdp/execute", command)

    def screenshot(self, name: str) -> Path:
        """The window's picture as ``test-artefacts/NAME.png``."""
        ARTEFACTS.mkdir(exist_ok=True)
        path = ARTEFACTS / f"{name}.png"
        path.write_bytes(base64.b64decode(_call("GET", f"{self.session}/screenshot")))
        return path

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """Run a script until what it returns is true, and give that back. AssertionError if it never is."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            value = self.run(script, *arguments)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"this never came true in the browser: {script}")


@contextlib.contextmanager
def browser(profile: Path, width: int = 1100, height: int = 900, more: Sequence[str] = ()) -> Iterator[Browser]:
    """A browser with a fresh profile in the folder ``profile``; skips the test where there is none.

    ``more``: further flags of Chromium, say `WEBGL`.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        lacking = "chromium" if chromium is None else "chromedriver"
        pytest.skip(f"{lacking} is not installed (Debian: apt-get install chromium chromium-driver)")
    port = free_port()
    log = profile.with_suffix(".log")
    with open(log, "wb") as output:
        process = subprocess.Popen([driver, f"--port={port}"], stdout=output, stderr=subprocess.STDOUT)
    session = None
    try:
        server = f"http://127.0.0.1:{port}"
        _wait_until_ready(server, process, log)
        flags = [*FLAGS, *more, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": chromium, "args": flags}}
        answer = _call("POST", f"{server}/session", {"capabilities": {"alwaysMatch": wanted}})
        session = f"{server}/session/{answer['sessionId']}"
        yield Browser(session)
    finally:
        if session is not None:
            with contextlib.suppress(OSError, AssertionError):
                _call("DELETE", session)
        process.terminate()
        process.wait(PATIENCE)


def _move(x: float, y: float) -> dict[str, Any]:
    return {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 20}


def _wait_until_ready(server: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None, f"chromedriver ended:\n{log.read_text(errors='replace')}"
        with contextlib.suppress(OSError):
            if _call("GET", f"{server}/status")["ready"]:
                return
        time.sleep(0.1)
    raise AssertionError(f"chromedriver does not answer:\n{log.read_text(errors='replace')}")


def _call(method: str, url: str, content: dict[str, Any] | None = None) -> Any:
    """One command of WebDriver; its value, or an AssertionError with what the driver says."""
    data = None if content is None else json.dumps(content).encode("utf8")
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # No proxy of the environment: the driver is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        said = json.loads(error.read() or b"{}").get("value", {})
        raise AssertionError(f"{method} {url}: {said.get('error')}: {said.get('message')}") from error
