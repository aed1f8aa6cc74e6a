"""Long work shows itself: bars with the remaining time on a terminal; in a pipe whole lines, no control characters."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from nerfstudio.utils.rich_utils import CONSOLE
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View

Item = TypeVar("Item")
LINES = 20
"""In a pipe a run says this many times how far it is."""
QUIET_SECONDS = 30.0
"""In a pipe other long work says how far it is where nothing was said for so long."""


def shows_bars() -> bool:
    """Whether the output is a terminal that can draw over itself."""
    return CONSOLE.is_terminal and not CONSOLE.is_dumb_terminal


class Silence:
    """How long nothing was said in a pipe."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def is_long(self) -> bool:
        """Whether it is time for a line; the caller then prints it, and the next silence begins."""
        now = time.monotonic()
        if now - self._since < QUIET_SECONDS:
            return False
        self._since = now
        return True


SILENCE = Silence()
"""Of all bars together, so that many short ones in a row are heard of too."""


class _Lines:
    """What `bar` yields in a pipe: it says how far the work is where nothing was said for a while."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total, self.done = label, total, 0.0
        self._began = time.monotonic()

    def __call__(self, done: float | None = None, total: int | None = None) -> None:
        self.done, self.total = (self.done + 1, self.total) if done is None else (done, total)
        if not SILENCE.is_long():
            return
        if self.total is None:
            say(f"{self.label}: {self.done:g}")
            return
        left = ""
        if 0 < self.done < self.total:
            each = (time.monotonic() - self._began) / self.done
            left = f", about {duration(each * (self.total - self.done))} left"
        say(f"{self.label}: {self.done:g} of {self.total}{left}")


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """A bar that vanishes when the block ends; in a pipe a line now and then.

    Yields a function: called without arguments, another of ``total`` pieces is done; called with (done, total), so many
    of so many are. ``total`` may be an estimate: with more pieces the bar stays full.
    """
    if not shows_bars():
        yield _Lines(label, total)
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


def say(line: str) -> None:
    """One plain line, not wrapped, without markup."""
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


def lines(label: str, total: int) -> Callable[..., None]:
    """What `bar` yields in a pipe, on a terminal nothing: for work of nerfstudio's, which has a bar there."""
    return (lambda *done: None) if shows_bars() else _Lines(label, total)


class Told(list[Item]):
    """A list for a loop of nerfstudio's, with `lines` that say how far that is."""

    def __init__(self, items: Iterable[Item], label: str) -> None:
        super().__init__(items)
        self._label = label

    def __iter__(self) -> Iterator[Item]:
        advance = lines(self._label, len(self))
        for item in super().__iter__():
            yield item
            advance()


@contextmanager
def status(label: str) -> Iterator[None]:
    """A spinner while the block lasts; in a pipe a line when it begins and one when it is over."""
    if shows_bars():
        with CONSOLE.status(label):
            yield
        return
    began = time.perf_counter()
    say(label)
    yield
    say(f"{label}: {duration(time.perf_counter() - began)}")


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
