"""What long refinement says while it works. Lines and bars go to one console; training gives its own (``console``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich
from rich.console import Console
from rich.errors import LiveError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int, int], None]
"""Called with the pieces done and their number, which may still change."""


def say(line: str, console: Console | None = None) -> None:
    """One plain line, wherever the output goes."""
    (console or rich.get_console()).print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(label: str, console: Console | None = None) -> Iterator[Advance]:
    """A bar that vanishes when the block ends, beneath any other on the same console; nothing in a pipe."""
    console = console or rich.get_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal or console.is_dumb_terminal
    progress = Progress(*columns, console=console, transient=True, disable=hidden)
    task = progress.add_task(label, total=None)
    try:
        progress.start()
    except LiveError:
        # Before 14.1 rich draws one bar at a time: the one that is there stays.
        progress.disable = True
    try:
        yield lambda done, total: progress.update(task, completed=done, total=total)
    finally:
        progress.stop()
