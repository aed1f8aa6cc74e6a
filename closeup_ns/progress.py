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
LINES = 20
"""In a pipe a run says this many times how far it is."""


def shows_bars() -> bool:
    """Whether the output is a terminal that can draw over itself."""
    return CONSOLE.is_terminal and not CONSOLE.is_dumb_terminal


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that vanishes when the block ends; in a pipe nothing is printed.

    Yields a function: called without arguments, another of ``total`` pieces is done; called with (done, total), so many
    of so many are. ``total`` may be an estimate: with more pieces the bar stays full.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    # Without a terminal rich would still print an empty line per bar.
    with Progress(*columns, console=CONSOLE, transient=True, disable=not shows_bars()) as progress:
        task = progress.add_task(label, total=total)

        def advance(done: int | None = None, total: int | None = None) -> None:
            if done is None:
                progress.advance(task)
            else:
                progress.update(task, completed=done, total=total)

        yield advance


def say(line: str) -> None:
    """One plain line, not wrapped, without markup."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def track(items: Collection[Item], label: str) -> Iterator[Item]:
    """``items``, with a bar that moves when the work on one is done."""
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
    """A duration as people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class StepLines:
    """How far training is, for logs: nerfstudio's own table redraws itself, which fills a file with control characters.

    On a terminal that table is there, remaining time included, and this says nothing.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._first: int | None = None
        self._began = 0.0

    def begin(self, step: int) -> None:
        """Called before step ``step`` is trained; the first call starts the clock."""
        if self._first is None:
            self._first, self._began = step, time.perf_counter()

    def done(self, step: int) -> None:
        """Called after step ``step`` was trained."""
        if shows_bars() or self._first is None or self.total <= 0:
            return
        trained = step + 1
        if trained * LINES // self.total > step * LINES // self.total and trained < self.total:
            each = (time.perf_counter() - self._began) / (trained - self._first)
            left = duration(each * (self.total - trained))
            # Percentage and milliseconds as in nerfstudio's table, which programs that watch a training read.
            share = f"({trained / self.total:.2%}), {1e3 * each:.3f} ms a step"
            CONSOLE.print(f"step {trained} of {self.total} {share}, about {left} left", highlight=False)

    def base_phase_over(self, steps: int) -> None:
        """One line when the base phase ends; nothing where this process did not train it from its start."""
        if self._first == 0:
            passed = duration(time.perf_counter() - self._began)
            CONSOLE.print(f"Base phase: {steps} steps in {passed}", highlight=False)


def stage_over(round_number: int, what: str, seconds: float) -> None:
    """One line for a finished stage of a round."""
    CONSOLE.print(f"Round {round_number}: {what} in {duration(seconds)}", highlight=False)
