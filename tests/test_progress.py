"""What long work prints, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from closeup_ns import progress
from closeup_ns.progress import (
    QUIET_SECONDS,
    Silence,
    StepLines,
    bar,
    duration,
    say,
    stage_over,
    status,
    track,
    watching,
)
from closeup_ns.views.rendered import Rendered
from tests.report.made_up import camera
from tests.scenes import analytic_renderer


def console(monkeypatch: pytest.MonkeyPatch, terminal: bool, dumb: bool = False) -> io.StringIO:
    output = io.StringIO()
    environment = {"TERM": "dumb" if dumb else "xterm"}
    made = Console(file=output, force_terminal=terminal, width=100, _environ=environment)
    monkeypatch.setattr(progress, "CONSOLE", made)
    monkeypatch.setattr(progress, "SILENCE", Silence())
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
    """Each piece takes 20 s, in one bar or in several that follow each other."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    output = console(monkeypatch, terminal=False)
    for label, count in (("counting", 5), ("one", 1), ("another", 1)):
        for _ in track(range(count), label):
            now[0] += 20
    assert output.getvalue().splitlines() == [
        "counting: 2 of 5, about 1 min 00 s left", "counting: 4 of 5, about 20.0 s left", "one: 1 of 1"
    ]  # fmt: skip
    with bar("endless") as advance:
        now[0] += QUIET_SECONDS
        advance()
    assert output.getvalue().endswith("\nendless: 1\n")


def test_in_a_pipe_a_spinner_is_a_line_at_its_start_and_one_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=False)
    with status("preparing"):
        assert output.getvalue() == "preparing\n"
    assert re.fullmatch(r"preparing\npreparing: \d\.\d s\n", output.getvalue())
    output = console(monkeypatch, terminal=True)
    with status("preparing"), bar("pictures", 3):
        pass
    assert "preparing" in output.getvalue() and "0/3" in output.getvalue()


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


def test_steps_are_said_twenty_times_in_a_pipe_and_never_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, lines in ((False, 19), (True, 0)):
        output = console(monkeypatch, terminal)
        speaker = StepLines(1000)
        for step in range(1000):
            speaker.begin(step)
            speaker.done(step)
        assert output.getvalue().count("\n") == lines
    output = console(monkeypatch, terminal=False)
    speaker = StepLines(10)
    for step in range(10):
        speaker.begin(step)
        speaker.done(step)
    assert re.match(r"step 5 of 10 \(50\.00%\), \d+\.\d{3} ms a step, ", output.getvalue().splitlines()[4])


def test_the_time_left_is_that_of_the_steps_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resumed at 500 of 1000: 50 steps in 10 s leave 450 steps in 90 s."""
    clock = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    output = console(monkeypatch, terminal=False)
    speaker = StepLines(1000)
    speaker.begin(500)
    speaker.done(549)
    assert output.getvalue() == "step 550 of 1000 (55.00%), 200.000 ms a step, about 1 min 30 s left\n"


def test_finished_stages_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    output = console(monkeypatch, terminal=False)
    stage_over(2, "planned", 3.21)
    speaker = StepLines(10)
    speaker.begin(4)
    speaker.base_phase_over(5)  # a resumed run did not train it from its start
    speaker = StepLines(10)
    speaker.begin(0)
    speaker.base_phase_over(5)
    planned, base = output.getvalue().splitlines()
    assert planned == "Round 2: planned in 3.2 s" and re.fullmatch(r"Base phase: 5 steps in \d.*", base)


@pytest.mark.parametrize("seconds, text", [(3.21, "3.2 s"), (61, "1 min 01 s"), (3725, "1 h 02 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
