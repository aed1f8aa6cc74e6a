"""Files of a bench: what is packaged loads, flags win over scenes, and every damage is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup_ns.bench.experiment import Experiment, read_experiment, read_experiments
from closeup_ns.bench.methods import Method
from closeup_ns.bench.scenes.prepared import PreparedScene, SceneRecord, read_scene
from closeup_ns.bench.scenes.protocol import load_protocol, protocol_names
from closeup_ns.errors import DataError
from tests.bench.stand_in import a_spec

ROUNDS = Method("rounds", nerfstudio="closeup-gs", options=("--x", "1"))


def test_every_packaged_protocol_loads_and_says_what_it_is() -> None:
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.name == name and protocol.summary and protocol.scenes


def test_flags_win_over_scenes_and_scenes_over_the_protocol(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: distance\nthreshold: 1.5\nscenes:\n  - {name: a, data: a}\n"
                    "  - {name: b, data: b, threshold: 1.2}\n")  # fmt: skip
    assert [scene.rule.threshold for scene in load_protocol(str(path)).scenes] == [1.5, 1.2]
    assert [scene.rule.threshold for scene in load_protocol(str(path), threshold=1.1).scenes] == [1.1, 1.1]
    assert [scene.rule.threshold for scene in load_protocol(str(path), threshold=None).scenes] == [1.5, 1.2]
    assert [scene.name for scene in load_protocol(str(path)).pick(("b",)).scenes] == ["b"]
    with pytest.raises(DataError, match="no scene 'c'; it has a, b"):
        load_protocol(str(path)).pick(("c",))


WALL = "scenes: [{name: a, data: a}]"
BAD_PROTOCOLS: dict[str, tuple[str | bytes, str]] = {
    "an unknown key": ("kind: distance\nscenes: [{name: a, data: a, treshold: 2}]", "scenes.0.treshold is 2"),
    "no kind": (WALL, "scenes.0.rule"),
    "no data": ("kind: distance\nscenes: [{name: a}]", "scene a needs `data`"),
    "data elsewhere": ("kind: distance\nscenes: [{name: a, data: ../x}]", "scene a needs `data`"),
    "no scenes": ("kind: distance", "its content is None"),
    "a Latin-1 byte": (b"name: caf\xe9\n", "cannot be read .*can't decode byte 0xe9"),
    "a list": ("- 1", r"is \[1\]"),
    "a scale of NaN": (f"kind: rendered\nscales: [.nan]\n{WALL}", "scenes.0.rule.scales.0 is nan"),
    "a scale below one": (f"kind: rendered\nscales: [0.5]\n{WALL}", "scenes.0.rule.scales.0 is 0.5"),
    "a name that leads out": ("kind: rendered\nscenes: [{name: ../../x}]", "scenes.0.name is '../../x'"),
    "two of one name": ("kind: rendered\nscenes: [{name: a}, {name: a}]", "two scenes have one name"),
    "a pixel without row": ("kind: distance\nscenes: [{name: a, data: a, pixel: 'x.png:1'}]", "scenes.0.pixel"),
}


@pytest.mark.parametrize("fault", BAD_PROTOCOLS)
def test_a_bad_protocol_is_an_error_with_file_place_and_remedy(tmp_path: Path, fault: str) -> None:
    content, message = BAD_PROTOCOLS[fault]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        load_protocol(str(path))
    assert "mine.yaml" in str(caught.value) and "show every key" in str(caught.value)


def test_an_unknown_protocol_lists_the_known_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="demo, farclose, lerf, llff, zoom"):
        load_protocol("imagenet")
    with pytest.raises(DataError, match="none.yaml does not exist"):
        load_protocol(str(tmp_path / "none.yaml"))


def test_a_scene_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = SceneRecord("zoom", "flower", "a.png:10:20", (1.0, 2.0, 3.0), notes=["a note"], made_with={"s": 1})
    record.write(tmp_path)
    assert read_scene(tmp_path) == PreparedScene(record, tmp_path)


BAD_SCENES = {
    "{": "cannot be read .not valid JSON",
    "{}": "protocol",
    '{"protocol": "p", "scene": "s", "target_point": [1, NaN]}': "NaN is not a finite number",
}


@pytest.mark.parametrize("content", BAD_SCENES)
def test_a_bad_scene_is_an_error_with_file_place_and_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "scene.json").write_text(content)
    with pytest.raises(DataError, match=BAD_SCENES[content]) as caught:
        read_scene(tmp_path)
    assert "scene.json" in str(caught.value) and "the bench prepares it again" in str(caught.value)


def test_damaged_experiments_are_passed_over(tmp_path: Path) -> None:
    good = a_spec().result(tmp_path, "done")
    good.write()
    content = json.loads((good.folder / "status.json").read_text())
    bad = ["{", "[]", "7", json.dumps({**content, "state": "odd"}), json.dumps({**content, "seconds": {"train": "x"}})]
    for number, text in enumerate(bad):
        folder = tmp_path / "experiments" / "p" / "s" / str(number)
        folder.mkdir(parents=True)
        (folder / "status.json").write_text(text)
        with pytest.raises(DataError, match=r"status\.json.*Remove .* runs it again"):
            read_experiment(folder)
    assert read_experiments(tmp_path) == [good]


def test_a_spec_travels_as_text() -> None:
    spec = a_spec(ROUNDS, train_options=("--y", "2"), quick=True)
    assert Experiment.from_json(spec.to_json()) == spec
    with pytest.raises(DataError, match="another version's bench"):
        Experiment.from_json('{"protocol": "demo"}')
