"""A run's folder in, one HTML page out: closeup-gs report, and the end of each round of ns-train."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from closeup_ns.atomic import atomic_path
from closeup_ns.errors import DataError
from closeup_ns.reading import read_json
from closeup_ns.report import sections
from closeup_ns.report.facts import RunFacts, read_run
from closeup_ns.report.markup import Content, Markup, tag
from closeup_ns.report.parts import note, notes
from closeup_ns.report.style import CSS, SCRIPT

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself refuses everything that is not in the page."""


def default_output(config_path: Path) -> Path:
    """Where a run's page belongs."""
    return config_path.parent / "rounds" / "report.html"


def write_report(config_path: Path, output: Path | None = None, scores: Path | None = None) -> Path:
    """Write the page of the run whose config.yml this is, whole or not at all. Nothing of the run is changed.

    Args:
        output: the page; `default_output` by default.
        scores: what ns-eval wrote; ``eval.json`` beside config.yml by default, where there is one.

    Raises:
        CheckpointError: this is no run.
        DataError: ``scores`` is not there or not what ns-eval writes.
        DiskError: the page cannot be written.
    """
    run = read_run(config_path)
    beside = config_path.parent / "eval.json"
    results = _read_scores(scores or beside) if scores is not None or beside.is_file() else {}
    text = page(run, results, datetime.datetime.now().astimezone())
    destination = output or default_output(config_path)
    with atomic_path(destination) as temporary:
        temporary.write_text(text, encoding="utf8")
    return destination


def page(run: RunFacts, scores: dict[str, Any], written: datetime.datetime) -> str:
    """The whole page."""
    title = f"closeup-gs: {run.config.get('experiment_name') or run.folder.name}"
    body: list[Content] = [
        tag("h1", title),
        tag("p", f"{run.config.get('method_name', '')}, {run.config.get('timestamp', '')}. Written at ",
            tag("time", written.strftime("%Y-%m-%d %H:%M:%S %z"), datetime=written.isoformat()), ".", class_="dim"),
        _status(run, written),
        notes("What could not be read:", run.problems),
    ]  # fmt: skip
    if run.rounds:
        body.append(_guarded("Quality", lambda: sections.quality(run)))
    body.append(_guarded("Scores", lambda: sections.scores(scores)))
    for item in run.rounds:
        body.append(_guarded(f"Round {item.number}", lambda item=item: sections.one_round(run, item)))
    if run.rounds:
        body.append(_guarded("What is generated", lambda: sections.generated(run)))
        body.append(_guarded("Time and memory", lambda: sections.cost(run)))
    body.append(_guarded("What was done", lambda: sections.made_with(run)))
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(CSS)),
    ]
    whole = tag("html", tag("head", head), tag("body", tag("main", body), tag("script", Markup(SCRIPT))), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _status(run: RunFacts, written: datetime.datetime) -> Markup | None:
    at = written.strftime("%Y-%m-%d %H:%M:%S")
    if not run.rounds:
        if run.wanted_rounds == 0:
            return note("This run has no rounds: it was asked for none.")
        return note(
            f"This run has no rounds yet: it is still training its base, or was stopped there. Written at {at}."
        )
    if run.finished < run.wanted_rounds:
        return note(
            f"Still training, or stopped: {run.finished} of {run.wanted_rounds} rounds are finished. Written at {at}; "
            "ns-train writes this page again at the end of each round, and closeup-gs report at any time."
        )
    return None


def _guarded(name: str, section: Callable[[], Markup | None]) -> Content:
    """A section, or what is wrong with the files that it is made of: one broken file must not cost the page."""
    try:
        return section()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as problem:
        return note(f"{name}: this part cannot be shown, since the run's files are not as expected ({problem!r}).")


def _read_scores(path: Path) -> dict[str, Any]:
    content = read_json(path, dict[str, Any], "Let ns-eval write it again")
    if not isinstance(content.get("results"), dict):
        raise DataError(f"{path} is not what ns-eval writes: it has no results. Let ns-eval write it again")
    return content["results"]
