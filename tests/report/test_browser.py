"""The page in a real browser, opened from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from closeup_ns.report.write import write_report
from tests.browser import Browser, browser
from tests.report.made_up import write_run

ARROW_RIGHT, HOME = "\ue014", "\ue011"
CLIP = "return getComputedStyle(document.querySelector('.compare .before')).clipPath"
WIDTHS = """return [...document.querySelectorAll('img')].map(image => image.naturalWidth)"""
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
COMPLETE = "return [...document.images].every(image => image.complete)"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def page(window: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moved away from its run, so that nothing beside it can help."""
    folder = tmp_path_factory.mktemp("elsewhere")
    return write_report(write_run(tmp_path_factory.mktemp("run")), folder / "r.html")


@pytest.fixture
def shown(window: Browser, page: Path) -> Browser:
    window.resize(1100, 900)
    window.open(page.as_uri())
    window.wait_for(COMPLETE)
    return window


def test_every_picture_loads(shown: Browser) -> None:
    shown.run("for (const part of document.querySelectorAll('details')) part.open = true")
    widths = shown.run(WIDTHS)
    assert len(widths) == 2 * (2 * 3 + 2) and all(width > 0 for width in widths)
    shown.screenshot("report")


def test_the_slider_moves_the_edge_between_the_two_pictures(shown: Browser) -> None:
    assert shown.run(CLIP) == "inset(0px 50% 0px 0px)"
    slider = "return document.querySelector('.compare input[type=range]')"
    shown.type_into(ARROW_RIGHT * 5, slider)
    assert shown.run(CLIP) == "inset(0px 45% 0px 0px)"
    shown.type_into(HOME, slider)
    assert shown.run(CLIP) == "inset(0px 100% 0px 0px)"
    shown.run("document.querySelector('.compare').scrollIntoView({block: 'center'})")
    shown.drag("return document.querySelector('.compare .stack')", 0.2, 0.8)
    assert 15 <= float(shown.run(CLIP).split()[1].rstrip("%")) <= 25
    assert float(shown.run(f"{slider}.value")) == pytest.approx(80, 4)


def test_generated_pixels_are_marked_on_request(shown: Browser) -> None:
    display = "return getComputedStyle(document.querySelector('.compare .mark-image')).display"
    assert shown.run(display) == "none"
    shown.click("return document.querySelector('.compare .mark')")
    assert shown.run(display) == "block"
    shown.screenshot("report-marked")


def test_it_fits_a_telephone(shown: Browser) -> None:
    """360 pixels wide: tables and the contact sheet scroll by themselves, the page does not."""
    shown.emulate(360, 2400)
    shown.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert shown.run("return innerWidth") == 360
    assert shown.run(OVERFLOW) <= 0
    shown.screenshot("report-narrow")
    shown.emulate(0, 0)
