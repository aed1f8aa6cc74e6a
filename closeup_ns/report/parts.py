"""Small pieces that the sections of the page share: figures in words, notes, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from closeup_ns.report.facts import ViewFacts
from closeup_ns.report.images import embed, embed_mark
from closeup_ns.report.markup import Content, Markup, tag

LONG_SIDE = 640
"""Pixels of a picture in the page: what fits a column on a dense screen."""


def number(value: Any, digits: int = 2, unit: str = "") -> str:
    """A figure, or a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return "–"
    return f"{value:,.{digits}f}{unit}"


def change(before: Any, after: Any, unit: str = " dB") -> list[Content]:
    """As in 20.10 → 20.50 dB (+0.40): the difference coloured and signed."""
    if not all(isinstance(value, (int, float)) for value in (before, after)):
        return [f"{number(before)} → {number(after)}"]
    gain = after - before
    kind = "good" if gain > 0.005 else "bad" if gain < -0.005 else None
    return [f"{before:.2f} → {after:.2f}{unit} (", tag("span", f"{gain:+.2f}", class_=kind), ")"]


def percent(share: float | None) -> str:
    """A share of one in per cent."""
    return "–" if share is None else f"{100 * share:.1f} %"


def duration(seconds: Any) -> str:
    """Seconds as people say them."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def note(*content: Content) -> Markup:
    """Something that the reader should know first."""
    return tag("div", *content, class_="note")


def notes(heading: str, lines: Sequence[str]) -> Markup | None:
    """A heading and a list; nothing where there are no lines."""
    return note(heading, tag("ul", [tag("li", line) for line in dict.fromkeys(lines)])) if lines else None


def facts_list(pairs: Sequence[tuple[str, Content]]) -> Markup:
    """Names and what they are; those without a value are left out."""
    return tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in pairs if value])


def mean(values: Sequence[Any]) -> float | None:
    """Mean of those that are figures."""
    known = [float(value) for value in values if isinstance(value, (int, float)) and value == value]
    return sum(known) / len(known) if known else None


def comparison(view: ViewFacts, identifier: str) -> Markup:
    """Two pictures of one view and a slider between them, with the generated pixels marked on request."""
    first, second, words = _pair(view)
    made = None if view.real_share is None else 1 - view.real_share
    try:
        before, after = (embed(view.pictures[kind], LONG_SIDE) for kind in (first, second))
        mark = embed_mark(view.pictures["real"], LONG_SIDE) if "real" in view.pictures else None
    except (OSError, KeyError, ValueError) as problem:
        return note(f"{view.name} cannot be shown: {_why(problem)}")
    size = {"width": after.width, "height": after.height, "draggable": "false"}
    stack = tag(
        "div",
        tag("img", src=after.uri, alt=f"{view.name}: {words[1]}", class_="after", **size),
        tag("img", src=before.uri, alt=f"{view.name}: {words[0]}", class_="before", **size),
        tag("img", src=mark.uri, alt="pixels whose colour no photograph gave", class_="mark-image", **size)
        if mark
        else None,
        tag("span", class_="edge"),
        tag("span", f"generated: {percent(made)} of the pixels", class_="tagline top"),
        tag("span", words[0], class_="tagline left"),
        tag("span", words[1], class_="tagline right"),
        class_="stack",
    )
    label = f"{view.name}: how much of the left picture is shown"
    return tag(
        "figure",
        [
            tag("input", type="checkbox", class_="mark", id=identifier),
            tag("label", " mark generated pixels", for_=identifier),
        ]
        if mark
        else None,
        stack,
        tag("input", type="range", min="0", max="100", value="50", attributes={"aria-label": label}),
        tag("figcaption", f"{view.name}: {_verdict(view)}"),
        class_="compare",
    )


def _pair(view: ViewFacts) -> tuple[str, str, tuple[str, str]]:
    if "after" in view.pictures:
        return "render", "after", ("before the round", "after the round")
    return "render", "refined", ("render", "refined")


def _verdict(view: ViewFacts) -> str:
    decision = view.decision
    word = str(decision.get("verdict", "not judged")).replace("_", " ")
    return f"refined view {word} ({decision['reason']})" if decision.get("reason") else f"refined view {word}"


def _why(problem: Exception) -> str:
    return f"its picture {problem} is missing" if isinstance(problem, KeyError) else str(problem)
