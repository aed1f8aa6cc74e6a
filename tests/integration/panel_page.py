"""The viewer's page in a browser, by the words that a person reads on it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.browser import PATIENCE, Browser

SELECT_ALL = "\ue009a\ue000"
"""Keys, as WebDriver writes them."""
DIFFERENT = 60.0
"""Summed over the channels."""
_BUTTON = "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.innerText.trim() == arguments[0])"
_FIND = """
    let part = [...document.querySelectorAll('label')].find(l => l.innerText.trim() == arguments[0]);
    const field = '[role=slider], input:not([type=hidden])';
    while (part && !part.querySelector(field)) part = part.parentElement;"""
_FIELD, _VALUE = f"{_FIND} return part.querySelector(field)", f"{_FIND} return part.querySelector(field).value"
_TRACK = f"""{_FIND}
    const track = part.querySelector('[role=slider]').parentElement;
    track.scrollIntoView({{block: 'center'}});
    const box = track.getBoundingClientRect();
    return [box.left, box.top, box.width, box.height]"""
_TAB = "return [...document.querySelectorAll('[role=tab]')].find(t => t.innerText.trim() == arguments[0])"
_FITS = """
    const columns = [...document.querySelectorAll('.mantine-ScrollArea-viewport')].filter(c => c.offsetParent);
    return columns.length > 0 && columns.every(column => column.scrollWidth <= column.clientWidth)"""
_CANVAS = """
    const scene = document.querySelector('canvas[data-engine]').getBoundingClientRect();
    return [scene.left, scene.top, scene.width, scene.height]"""


class PanelPage:
    """One tab that shows the viewer."""

    def __init__(self, window: Browser, url: str) -> None:
        self.window, self.url = window, url

    def open(self) -> None:
        """Load the page, and wait until the camera is where the photographs are and the rounds are drawn."""
        self.window.open(self.url)
        self.wait_for("Close-up")
        self.window.wait_for("return document.querySelector('canvas[data-engine]') != null")
        self.wait_for("Click on a frustum")
        self.wait_for("Target (")

    # ---- what one reads

    def text(self) -> str:
        return self.window.run("return document.body.innerText")

    def wait_for(self, part: str) -> str:
        self.window.wait_for("return document.body.innerText.includes(arguments[0])", part)
        return self.text()

    def wait_until_gone(self, part: str) -> None:
        self.window.wait_for("return !document.body.innerText.includes(arguments[0])", part)

    def fits(self) -> bool:
        """Whether nothing of the panel is cut off at its right."""
        return self.window.run(_FITS)

    # ---- what one does

    def press(self, label: str) -> None:
        """Press the button with this label, once it is there."""
        self.window.wait_for(f"return {_BUTTON}.length > 0", label)
        self.window.run(f"{_BUTTON}[0].click()", label)  # a tooltip may lie over it

    def press_tab(self, label: str) -> None:
        self.window.run(f"{_TAB}.click()".removeprefix("return "), label)

    def tick(self, label: str) -> None:
        """Tick a box, or take the tick away."""
        self.window.run(f"{_FIELD}.click()".replace("return ", ""), label)  # a scroll bar may lie over it for a while

    def slide(self, label: str, share: float) -> None:
        """Click at a share of a slider's track. Arrow keys would turn viser's camera too, whatever has the focus."""
        left, top, width, height = self.window.run(_TRACK, label)
        self.window.click_at(left + share * width, top + height / 2)

    def type(self, label: str, words: str) -> None:
        """Put other words into a field."""
        self.window.type_into(SELECT_ALL + words, _FIELD, label)

    def value(self, label: str) -> str:
        """What a field says."""
        return self.window.run(_VALUE, label)

    def wait_for_value(self, label: str, expected: str) -> None:
        self.window.wait_for(f"{_VALUE} == arguments[1]", label, expected)

    def canvas(self) -> tuple[float, float, float, float]:
        """Left, top, width, height of what is not covered by the panel, CSS pixels."""
        left, top, width, height = self.window.run(_CANVAS)
        return left, top, width, height

    def click(self, column: float, row: float) -> None:
        """Click in the scene, at a pixel of its picture."""
        left, top, _, _ = self.canvas()
        self.window.click_at(left + column, top + row)

    # ---- what one sees

    def picture(self, name: str) -> np.ndarray:
        """The scene [H, W, 3] in 0..255 as it is now; the window stays as ``name`` in the artefacts."""
        self.window.move_to(400, 5)  # what is under the mouse is drawn in another colour
        left, top, width, height = (round(value) for value in self.canvas())
        with Image.open(self.window.screenshot(name)) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.float64)[top : top + height, left : left + width]

    def until(self, what: str, name: str, seen: Callable[[np.ndarray], bool]) -> np.ndarray:
        """The first picture in which ``seen`` is true: frames come late, coarse and one by one on a busy machine."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            now = self.picture(name)
            if seen(now):
                return now
            time.sleep(0.2)
        raise AssertionError(f"never seen: {what} (test-artefacts/{name}.png)")


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where two pictures of the scene differ [H, W], by more than JPEG and a coarser frame do."""
    assert before.shape == after.shape, "the window's size changed"
    return np.abs(before - after).sum(-1) > DIFFERENT
