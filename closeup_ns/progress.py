"""Long work shows itself: bars with the remaining time on a terminal; in a pipe whole lines, no control characters."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View

Item = TypeVar("Item")
QUIET_SECONDS = 30.0
"""In a pipe long work says how far it is when it has said nothing for so long."""


def shows_bars() -> bool:
    """Whether the output is a terminal that can draw over itself."""
    return CONSOLE.is_terminal and not CONSOLE.is_dumb_terminal


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that vanishes when the block ends; in a pipe a line now and then.

    Yields a function: called without arguments, another of ``total`` pieces is done; called with (done, total), so many
    of so many are. ``total`` may be an estimate: with more pieces the bar stays full.
    """
    if not shows_bars():
        yield _lines(label, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task(label, total=total)

        def advance(done: int | None = None, total: int | None = None) -> None:
            if done is None:
                progress.advance(task)
            else:
                progress.update(task, completed=done, total=total)

        yield advance


def _lines(label: str, total: int | None) -> Callable[..., None]:
    """What `bar` yields in a pipe."""
    done, said_at = 0.0, time.monotonic()

    def advance(now: float | None = None, of: int | None = None) -> None:
        nonlocal done, said_at
        done = done + 1 if now is None else now
        if time.monotonic() - said_at >= QUIET_SECONDS:
            said_at = time.monotonic()
            say(f"{label}: {round(done, 2):g} of {total if of is None else of}")

    return advance


def say(line: str) -> None:
    """One plain line, not wrapped, without markup."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def track(items: Collection[Item], label: str) -> Iterator[Item]:
    """``items``, with a `bar` that moves when the work on one is done."""
    with bar(label, len(items)) as advance:
        for item in items:
            yield item
            advance()


def watching(render: Renderer, advance: Callable[[], None]) -> Renderer:
    """``render``, with a call of ``advance`` after each view."""

    def watched(view: View) -> Rendered:
        rendered = render(view)
        advance()
        return rendered

    return watched


def duration(seconds: float) -> str:
    """Seconds as text: "7.5 s", "3 min 05 s", "2 h 07 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
