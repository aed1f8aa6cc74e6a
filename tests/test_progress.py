"""What long work prints, on a terminal and in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from closeup_ns import progress
from closeup_ns.progress import bar, duration, say, track, watching
from closeup_ns.views.rendered import Rendered
from tests.report.made_up import camera
from tests.scenes import analytic_renderer


def console(monkeypatch: pytest.MonkeyPatch, terminal: bool, dumb: bool = False) -> io.StringIO:
    output = io.StringIO()
    environment = {"TERM": "dumb" if dumb else "xterm"}
    made = Console(file=output, force_terminal=terminal, width=100, _environ=environment)
    monkeypatch.setattr(progress, "CONSOLE", made)
    return output


@pytest.mark.parametrize("dumb", [False, True])
def test_in_a_pipe_short_work_prints_nothing_at_all(monkeypatch: pytest.MonkeyPatch, dumb: bool) -> None:
    """On a terminal that cannot draw over itself, too."""
    output = console(monkeypatch, terminal=dumb, dumb=dumb)
    assert list(track([1, 2, 3], "counting")) == [1, 2, 3]
    with bar("more", 2) as advance:
        advance()
    assert output.getvalue() == ""


def test_in_a_pipe_long_work_says_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece takes 20 s."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    output = console(monkeypatch, terminal=False)
    for _ in track(range(5), "counting"):
        now[0] += 20
    assert output.getvalue().splitlines() == ["counting: 2 of 5", "counting: 4 of 5"]
    with bar("experiments") as advance:
        now[0] += 60
        advance(1 / 3, 4)
    assert output.getvalue().endswith("\nexperiments: 0.33 of 4\n")


def test_on_a_terminal_a_bar_counts_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=True)
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert "counting" in output.getvalue() and "3/3" in output.getvalue() and "left:" in output.getvalue()


def test_a_bar_takes_what_is_done_of_what_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=True)
    with bar("inner") as advance:
        advance(1, 5)
        advance(3, 4)
    assert "3/4" in output.getvalue()


def test_bars_within_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=True)
    with bar("outer", 7) as outer, bar("inner") as inner:
        inner(2, 3)
        outer()
    assert "1/7" in output.getvalue()


def test_a_line_is_neither_wrapped_nor_marked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=False)
    say("[1] " + 50 * "pictures ")
    assert output.getvalue() == "[1] " + 50 * "pictures " + "\n"


def test_an_error_in_the_work_comes_through_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console(monkeypatch, terminal=True)
    with pytest.raises(ValueError, match="inside"), bar("work", 1):
        raise ValueError("inside")


def test_a_watched_renderer_renders_the_same_and_counts() -> None:
    counted: list[int] = []
    render = analytic_renderer()
    watched = watching(render, lambda: counted.append(1))
    view = camera(4.0, 0.0)
    result = watched(view)
    assert isinstance(result, Rendered) and (result.color == render(view).color).all() and counted == [1]


@pytest.mark.parametrize("seconds, text", [(3.21, "3.2 s"), (61, "1 min 01 s"), (3725, "1 h 02 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
