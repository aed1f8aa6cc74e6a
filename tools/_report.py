"""Rows of one table: each stage of a check leaves one, whether it went well or not, and the rest goes on."""

from __future__ import annotations

import math
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from closeup_ns.atomic import write_json

Status = Literal["ok", "failed", "reported", "skipped"]
Figures = Mapping[str, float | int | str]
_WIDTH, _INDENT = 116, " " * 9


class CheckFailed(Exception):
    """A stage ran and found what must not be; ``figures`` say what it measured all the same."""

    def __init__(self, reason: str, figures: Figures | None = None) -> None:
        super().__init__(reason)
        self.figures = dict(figures or {})


class Skipped(Exception):
    """A stage cannot run, for a reason that another row or the command line gives."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    stage: str
    name: str
    status: Status
    """``reported`` are figures that nothing is demanded of."""
    figures: dict[str, float | int | str]
    reason: str
    seconds: float

    def line(self) -> str:
        """The row as it is printed: what it is, its figures below."""
        head = f"{self.status:8} {self.stage:7} {self.name:40} {self.seconds:7.1f} s  {self.reason}".rstrip()
        figures = "; ".join(f"{key} {_short(value)}" for key, value in self.figures.items())
        return "\n".join([head, *textwrap.wrap(figures, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)])


@dataclass
class Report:
    """The rows so far, written to a file after each one: GPU time can end at any moment."""

    path: Path
    """The JSON file; tracebacks go into a file of the same name with the suffix .log."""
    minutes: float
    """After this long no stage begins, and none that runs in a process of its own goes on."""
    about: dict[str, Any] = field(default_factory=dict)
    """The machine and the settings."""
    rows: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        """What is left of the budget; negative once it is spent."""
        return 60 * self.minutes - (time.monotonic() - self.started)

    def run(self, stage: str, name: str, check: Callable[[], Figures], demanded: bool = True) -> Row:
        """Do ``check`` and note its figures, or why there are none. ``demanded``: its figures were held to a limit."""
        began = time.monotonic()
        status: Status = "ok" if demanded else "reported"
        figures: Figures = {}
        reason = ""
        try:
            if self.seconds_left() <= 0:
                raise Skipped(f"the budget of {self.minutes:g} minutes is spent")
            figures = check()
        except Skipped as error:
            status, reason = "skipped", str(error)
        except CheckFailed as error:
            status, reason, figures = "failed", str(error), error.figures
        except (Exception, SystemExit) as error:  # one stage must not end the others, whatever it raises
            status, reason = "failed", one_line(error)
            self._keep_traceback(f"{stage} {name}")
        row = Row(stage, name, status, dict(figures), reason, time.monotonic() - began)
        self.rows.append(row)
        print(row.line(), flush=True)
        self.write()
        return row

    def write(self) -> None:
        """Write everything so far."""
        write_json(self.path, _finite({**self.about, "rows": [asdict(row) for row in self.rows]}))

    def exit_code(self) -> int:
        """0 where every row is ok or merely reported, else 1: what was skipped was not checked."""
        return 0 if self.rows and all(row.status in ("ok", "reported") for row in self.rows) else 1

    def _keep_traceback(self, title: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".log"), "a", encoding="utf8") as log:
            log.write(f"== {title}\n{traceback.format_exc()}\n")


def one_line(error: BaseException) -> str:
    """An exception, and what it arose from where that is another one: gsplat hides a failed build behind an import."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
    text = f"{type(error).__name__}: {telling.strip()}"
    origin = error.__cause__ or error.__context__
    if origin is None:
        return text
    return f"{text} (from {type(origin).__name__}: {(str(origin).splitlines() or ['no message'])[0]})"


def _short(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """``value`` with infinities and NaN as text, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
