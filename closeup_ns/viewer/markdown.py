"""Text for viser's Markdown, which is MDX: braces are JavaScript in it, and a text with a lone < is not shown at all.

Where a text cannot be parsed the browser goes on showing the old one: an error would never be seen. Names of files,
messages of errors and whatever else is not written here goes through `escape`.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#~|&!$])")
_LONG = 20
"""Letters of a word that might not fit into the panel, which would grow wider than its column."""


def escape(text: str) -> str:
    """``text`` in one line of Markdown that shows them letter by letter; long ones are broken where the line ends."""
    parts = text.split()
    escaped = _SPECIAL.sub(r"\\\1", " ".join(parts))
    if max(map(len, parts), default=0) <= _LONG:
        return escaped
    return f'<span style={{{{overflowWrap: "anywhere"}}}}>{escaped}</span>'
