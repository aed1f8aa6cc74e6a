"""HTML and SVG in which every text is escaped: only `tag` makes markup, and only what it made passes unescaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import TypeAlias

VOID = {"img", "input", "meta", "br", "circle", "line", "path", "rect", "polygon"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content] | None"


def tag(name: str, /, *content: Content, attributes: Mapping[str, object] | None = None, **more: object) -> Markup:
    """An element. Strings in ``content`` are escaped, lists are flattened, None is left out.

    Args:
        attributes: names as they are written (``aria-label``); more come as keywords, where ``class_`` is ``class`` and
            an underscore a hyphen. True gives an attribute without a value; None and False give none.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in more.items()}
    written = "".join(
        f" {key}" if value is True else f' {key}="{html.escape(str(value), quote=True)}"'
        for key, value in {**named, **(attributes or {})}.items()
        if value is not None and value is not False
    )
    if name in VOID and not content:
        return Markup(f"<{name}{written}>" if name in ("img", "input", "meta", "br") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def joined(content: Content) -> Markup:
    """The parts one after the other, escaped where they are not markup."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(html.escape(content))
    return Markup("".join(joined(part) for part in content))


def table(head: Iterable[Content], rows: Iterable[Iterable[Content]], caption: str) -> Markup:
    """A table that scrolls sideways by itself on a narrow screen; the first cell of a row is its heading."""
    body = []
    for row in rows:
        first, *rest = row
        body.append(tag("tr", tag("th", first, scope="row"), [tag("td", cell) for cell in rest]))
    inside = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", [tag("th", cell, scope="col") for cell in head])),
        tag("tbody", body),
    )
    return tag("div", inside, class_="wide", tabindex="0", role="region", attributes={"aria-label": caption})
