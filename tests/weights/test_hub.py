"""The hub, played by a server on this machine: what it says, what arrives, and what is left when it goes away."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION
from closeup_ns.weights import hub as hub_module
from closeup_ns.weights.files import Expected, FileState
from closeup_ns.weights.hub import HubUnreachable, cached_file, fetch, human_size, published_files
from tests.weights.fake_hub import FakeHub

pytest_plugins = ("tests.weights.fixtures",)

SMALL, LARGE = (
    "checkpoint/MVD_weights/vae/config.json",
    "checkpoint/MVD_weights/vae/diffusion_pytorch_model.safetensors",
)


def fetched(names: list[str]) -> list[FileState]:
    states: list[FileState] = []
    files = published_files(SEE3D_HUB, SEE3D_REVISION, names)
    fetch(SEE3D_HUB, SEE3D_REVISION, files, states.append, lambda line: None)
    return states


def test_the_hub_says_sizes_and_checksums_of_what_it_has(hub: FakeHub) -> None:
    found = published_files(SEE3D_HUB, SEE3D_REVISION, [SMALL, LARGE, "no/such.json"])
    content = {name: (hub.root / name).read_bytes() for name in (SMALL, LARGE)}
    blob = hashlib.sha1(b"blob %d\0" % len(content[SMALL]) + content[SMALL]).hexdigest()
    assert found == {
        SMALL: Expected(len(content[SMALL]), None, blob),
        LARGE: Expected(len(content[LARGE]), hashlib.sha256(content[LARGE]).hexdigest(), None),
    }


def test_files_arrive_as_published_and_only_once(hub: FakeHub) -> None:
    assert cached_file(SEE3D_HUB, SEE3D_REVISION, LARGE) is None
    states = fetched([SMALL, LARGE])
    assert [(state.name, state.fault, state.proven) for state in states] == [(SMALL, None, True), (LARGE, None, True)]
    path = cached_file(SEE3D_HUB, SEE3D_REVISION, LARGE)
    assert path is not None and path.read_bytes() == (hub.root / LARGE).read_bytes()
    assert fetched([SMALL, LARGE]) == states
    assert hub.sent == [SMALL, LARGE]


def test_a_hub_that_goes_away_in_the_middle_leaves_what_is_complete(hub: FakeHub) -> None:
    hub.fails_after = 1
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        fetched([SMALL, LARGE])
    assert cached_file(SEE3D_HUB, SEE3D_REVISION, SMALL) is not None
    assert cached_file(SEE3D_HUB, SEE3D_REVISION, LARGE) is None
    hub.fails_after = None
    assert all(state.proven for state in fetched([SMALL, LARGE]))
    assert hub.sent == [SMALL, LARGE]


def test_a_file_that_arrives_damaged_is_refused_and_fetched_again(hub: FakeHub) -> None:
    hub.corrupts.add(LARGE)
    with pytest.raises(RefinerError, match=f"{LARGE} arrived damaged"):
        fetched([SMALL, LARGE])
    hub.corrupts.clear()
    assert all(state.proven for state in fetched([SMALL, LARGE]))
    assert hub.sent == [SMALL, LARGE, LARGE]


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: content[:-1] + b"\xff"])
def test_a_cached_file_that_went_bad_is_fetched_again(hub: FakeHub, damage: Callable[[bytes], bytes]) -> None:
    fetched([LARGE])
    path = cached_file(SEE3D_HUB, SEE3D_REVISION, LARGE)
    assert path is not None
    path.resolve().write_bytes(damage(path.read_bytes()))
    assert fetched([LARGE])[0].proven
    assert hub.sent == [LARGE, LARGE]


def test_what_the_hub_does_not_have_is_said(hub: FakeHub) -> None:
    with pytest.raises(HubUnreachable, match="has no someone/Else"):
        published_files("someone/Else", SEE3D_REVISION, [SMALL])
    with pytest.raises(HubUnreachable, match="no revision 0000"):
        published_files(SEE3D_HUB, "0" * 40, [SMALL])
    for ask in (lambda: published_files("a b", "0" * 40, [SMALL]), lambda: cached_file("a b", "0" * 40, SMALL)):
        with pytest.raises(RefinerError, match="no hub id"):
            ask()


def test_no_hub_at_all(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        published_files(SEE3D_HUB, SEE3D_REVISION, [SMALL])


def test_a_full_disk_is_said_before_anything_is_fetched(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2**28 + 10))
    with pytest.raises(RefinerError, match=r"45\.1 kB are to be fetched.*HF_HUB_CACHE"):
        fetched([LARGE])
    assert not hub.sent


def test_the_cache_is_where_the_environment_says(hub: FakeHub, tmp_path: Path) -> None:
    assert hub_module.cache_folder() == tmp_path / "cache"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (45_100, "45.1 kB"),
        (999_900, "1000 kB"),
        (3_463_000_000, "3.46 GB"),
    ],
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert human_size(size) == text
