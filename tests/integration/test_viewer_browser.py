"""The viewer's page in a real browser: what a person sees, clicks and drags, on a real ns-viewer.

Screenshots stay in test-artefacts/. The processor draws the scene, so that no test needs a GPU.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.browser import WEBGL, Browser, browser
from tests.integration.panel_page import PanelPage, changed
from tests.integration.runs import Run
from tests.integration.serving import serving

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile", 1000, 800, WEBGL) as opened:
        yield opened


def test_a_person_comes_closer_sets_a_target_sees_overlays_and_saves_a_path(
    window: Browser, finished: Run, capture: Path, tmp_path: Path
) -> None:
    """Once more from the start where something was not seen in time: a busy machine draws a frame in seconds."""
    for attempt in (1, 2):
        try:
            with serving("ns-viewer", "--load-config", finished.config, cwd=tmp_path) as port:
                drives_the_panel(PanelPage(window, f"http://127.0.0.1:{port}"), capture)
            return
        except AssertionError:
            if attempt == 2:
                raise


def drives_the_panel(page: PanelPage, capture: Path) -> None:
    page.open()
    comes_closer(page)
    sets_a_target(page)
    sees_what_backs_the_pixels(page)
    is_told_what_is_wrong_with_a_name(page)
    saves_a_path_and_loads_it(page, capture)


def come_closer(page: PanelPage, stops: float) -> None:
    """To about 3 ** ``stops`` times the photographs' distance: a pixel of the slider is one of its steps."""
    page.slide("Closer", (stops + 1) / 4.5)
    said = re.compile(r"([0-9.]+)x closer")

    def is_there(_: np.ndarray) -> bool:
        found = said.search(page.text())
        return found is not None and float(found[1]) == pytest.approx(3**stops, rel=0.15)

    page.until(f"{3**stops:.2f}x closer", "viewer-closer", is_there)


def comes_closer(page: PanelPage) -> None:
    come_closer(page, 0)
    far = page.until("the scene", "viewer-1x", lambda now: now.std() > 5)
    come_closer(page, 1)
    page.until("another picture from three times closer", "viewer-3x", lambda now: changed(far, now).mean() > 0.2)


def sets_a_target(page: PanelPage) -> None:
    """The description is another one, and the red ring is where the click was."""
    come_closer(page, 0)
    before, old = page.picture("viewer-target-before"), target_of(page)
    height, width = before.shape[:2]
    column, row = round(0.55 * width), round(0.58 * height)
    pick(page, column, row)
    page.wait_until_gone(f"Target ({old})")
    assert "reliability" in page.text() and "empty sky" not in page.text()
    page.until("a red ring at the click", "viewer-target-after", lambda now: ring_at(before, now, column, row))


def ring_at(before: np.ndarray, now: np.ndarray, column: int, row: int) -> bool:
    """Whether it is redder around a place than it was; the scene itself is red in parts."""
    rows, columns = np.indices(now.shape[:2])
    near = np.hypot(columns - column, rows - row) < 25
    redness, old = (picture[..., 0] - picture[..., 1:].max(-1) for picture in (now, before))
    return int((near & (redness - old > 40)).sum()) > 20


def sees_what_backs_the_pixels(page: PanelPage) -> None:
    plain = page.picture("viewer-plain")
    page.tick("reliable pixels")
    page.wait_for("measured at")

    def greener(now: np.ndarray) -> bool:
        red, green, blue = np.moveaxis(now - plain, -1, 0)
        return bool(((green > red + 15) & (green > blue + 15)).mean() > 0.005)

    page.until("green where a photograph agrees", "viewer-reliable", greener)
    page.tick("reliable pixels")
    page.until("no green", "viewer-plain", lambda now: not greener(now))
    page.tick("real or generated")
    page.until(
        "blue where the colour is real", "viewer-provenance",
        lambda now: bool((now[..., 2] - plain[..., 2] > now[..., 0] - plain[..., 0] + 15).mean() > 0.005),
    )  # fmt: skip
    page.tick("real or generated")


def is_told_what_is_wrong_with_a_name(page: PanelPage) -> None:
    """Though viser's Markdown would run it, or show nothing of it."""
    for name in ("a{document.title = 'b'}", "<c"):
        page.type("Name", name)
        page.press("Save camera path")
        page.wait_for(f"{name!r} is no name for a path")


def saves_a_path_and_loads_it(page: PanelPage, capture: Path) -> None:
    """In nerfstudio's own Render tab."""
    file = capture / "camera_paths" / "from-the-browser.json"
    try:
        page.type("Name", file.stem)
        page.press("Save camera path")
        page.wait_for("Saved ")
        assert str(file) in page.text().replace("\n", "")
        assert page.fits(), "the path's name made the panel wider than its column"
        saved = json.loads(file.read_text())
        page.window.screenshot("viewer-path-saved")
        page.press_tab("Render")
        page.press("Load Path")
        page.press("Load")
        page.wait_for_value("Render name", file.stem)
        assert float(page.value("Duration (sec)")) == pytest.approx(saved["seconds"], rel=0.05)
        page.window.screenshot("viewer-path-loaded")
    finally:
        shutil.rmtree(file.parent, ignore_errors=True)


def pick(page: PanelPage, column: int, row: int) -> None:
    page.press("Set target by a click")
    page.wait_for("Click on the object.")
    page.click(column, row)


def target_of(page: PanelPage) -> str:
    return page.text().split("Target (")[1].split(")")[0]
