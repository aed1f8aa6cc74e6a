"""Words in the panel are read as they were written, whatever Markdown or MDX would make of them."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.viewer.markdown import escape

SPAN = re.compile(r'<span style=\{\{overflowWrap: "anywhere"\}\}>(.*)</span>')


def read(markdown: str) -> str:
    """What a reader of CommonMark's escapes sees; fails where something is left that MDX would take for its own."""
    spanned = SPAN.fullmatch(markdown)
    inside = spanned[1] if spanned else markdown
    assert not re.search(r"(?<!\\)(\\\\)*[`*_{}\[\]<>#~|&!]", inside), inside
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", inside)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab \n\\`*_{}[]<>#~|&!$-./1")))
def test_any_text_is_read_as_it_is(text: str) -> None:
    assert read(escape(text)) == " ".join(text.split())


def test_only_words_that_may_not_fit_are_broken_anywhere() -> None:
    assert escape("the camera is inside the scene's geometry") == "the camera is inside the scene's geometry"
    assert SPAN.fullmatch(escape("saved in a-folder-with-a-very-long-name here"))
