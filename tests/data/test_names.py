"""Names of photographs: no two alike, and found by as much of them as is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeup_ns.data.names import find_photograph, photograph_names, picture_names

TWO = [Path("capture/left side/a.png"), Path("capture/left side/b.png"), Path("capture/right/a.png")]


def test_the_files_own_names_where_they_suffice() -> None:
    assert photograph_names([Path("one/a.png"), Path("two/b:ü.png")]) == ["a.png", "b:ü.png"]
    assert photograph_names([]) == []


def test_folders_where_names_repeat() -> None:
    assert photograph_names(TWO) == ["left side/a.png", "left side/b.png", "right/a.png"]


def test_a_picture_has_no_folder_in_its_name() -> None:
    assert picture_names(TWO[:2]) == ["a", "b"]
    assert picture_names(TWO) == ["left side_a", "left side_b", "right_a"]
    assert len(set(picture_names([Path("r/a_b/c.png"), Path("r/a/b_c.png"), Path("r/x/c.png")]))) == 3


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, unique_by=tuple))
def test_no_two_alike_and_each_is_found_by_its_name(parts: list[list[str]]) -> None:
    names = photograph_names([Path("root", *some).with_suffix(".png") for some in parts])
    assert len(set(names)) == len(names)
    assert [find_photograph(names, name) for name in names] == list(range(len(names)))


def test_the_end_of_a_name_is_enough_where_it_is_the_only_one() -> None:
    names = photograph_names(TWO)
    assert find_photograph(names, "b.png") == 1
    assert find_photograph(names, "Left Side\\B.jpg") == 1
    with pytest.raises(LookupError, match=r"Did you mean left side/b\.png\?"):
        find_photograph(names, "left side/bb.png")
    with pytest.raises(LookupError, match="2 are called a.png: left side/a.png, right/a.png$"):
        find_photograph(names, "a.png")


@pytest.mark.parametrize("wanted", ["png", ".png", "side/a.png", "", "c.png"])
def test_what_is_no_name_is_refused_with_those_that_there_are(wanted: str) -> None:
    with pytest.raises(LookupError, match=r"none is called .*; there are left side/a.png, left side/b.png, right/a"):
        find_photograph(photograph_names(TWO), wanted)
