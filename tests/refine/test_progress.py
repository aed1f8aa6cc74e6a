"""Bars and lines of the refiners, on a console of the test's own."""

from __future__ import annotations

import io
from unittest.mock import patch

from rich.console import Console
from rich.errors import LiveError

from closeup_ns.refine.progress import bar, say


def test_a_bar_counts_what_is_done_of_what_may_change() -> None:
    output = io.StringIO()
    with bar("work", Console(file=output, force_terminal=True, width=100)) as advance:
        advance(1, 5)
        advance(3, 4)
    assert "work" in output.getvalue() and "3/4" in output.getvalue()


def test_a_pipe_sees_lines_and_no_bar() -> None:
    output = io.StringIO()
    console = Console(file=output, width=20)
    with bar("work", console) as advance:
        advance(1, 2)
    say("[1] a line that is longer than the console: 18 pictures", console)
    assert output.getvalue() == "[1] a line that is longer than the console: 18 pictures\n"


def test_bars_within_bars() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    with bar("outer", console) as outer, bar("inner", console) as inner:
        inner(2, 3)
        outer(1, 7)
    assert "1/7" in output.getvalue()
    with patch.object(Console, "set_live", side_effect=LiveError("only one")), bar("old rich", console) as advance:
        advance(1, 2)
    assert "old rich" not in output.getvalue()
