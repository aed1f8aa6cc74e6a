"""Protocol files: the packaged ones load, keys are checked, flags win over scenes and scenes over the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from closeup_ns.bench.protocol import load_protocol, protocol_names
from closeup_ns.errors import DataError


def test_every_packaged_protocol_loads_and_says_what_it_is():
    assert protocol_names() == ["demo", "farclose", "lerf", "llff", "zoom"]
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.name == name and protocol.summary and protocol.scenes


def test_the_papers_scenes_and_scales_are_those_of_the_paper():
    llff, lerf = load_protocol("llff"), load_protocol("lerf")
    assert [scene.name for scene in llff.scenes] == ["flower", "fortress", "orchids", "trex"]
    assert all(scene.rule.scales == (3, 9, 27) and scene.rule.views_per_scale == 5 for scene in llff.scenes)
    assert [scene.name for scene in lerf.scenes] == ["donuts", "shoe_rack", "teatime"]
    assert all(scene.rule.rounds == 1 and scene.rule.frontier == "test" for scene in lerf.scenes)


def test_flags_win_over_scenes_and_scenes_over_the_protocol(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("kind: distance\nthreshold: 1.5\nscenes:\n  - {name: a, data: a}\n"
                    "  - {name: b, data: b, threshold: 1.2}\n")  # fmt: skip
    assert [scene.rule.threshold for scene in load_protocol(str(path)).scenes] == [1.5, 1.2]
    assert [scene.rule.threshold for scene in load_protocol(str(path), threshold=1.1).scenes] == [1.1, 1.1]
    assert [scene.rule.threshold for scene in load_protocol(str(path), threshold=None).scenes] == [1.5, 1.2]
    assert [scene.name for scene in load_protocol(str(path)).pick(("b",)).scenes] == ["b"]
    with pytest.raises(DataError, match="no scene 'c'; it has a, b"):
        load_protocol(str(path)).pick(("c",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: distance\nscenes: [{name: a, data: a, treshold: 2}]", "unknown key 'treshold'"),
        ("kind: magic\nscenes: [{name: a, data: a}]", "kind is 'magic'"),
        ("kind: distance\nscenes: [{name: a}]", "needs a name and data"),
        ("kind: distance", "no protocol"),
        ("a: [", "cannot read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        load_protocol(str(tmp_path / "mine.yaml"))


def test_an_unknown_name_lists_the_known():
    with pytest.raises(DataError, match="demo, farclose, lerf, llff, zoom"):
        load_protocol("imagenet")
