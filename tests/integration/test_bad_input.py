"""Bad input through the commands: one clear error that names the thing and the way out, and nothing is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from closeup_ns.cli.main import main
from tests.integration.captures import write_transforms
from tests.integration.commands import command
from tests.integration.runs import Run, run_of, train_arguments

pytestmark = pytest.mark.integration


def test_a_folder_without_a_capture_and_a_truncated_photograph(tmp_path: Path) -> None:
    """Which captures are refused, and what is said of each, is tested where they are read (tests/data).

    Really started, as a user does: what is seen is the error's one line, and no traceback.
    """
    write_transforms(tmp_path / "cut")
    victim = tmp_path / "cut/images/frame_00005.png"
    victim.write_bytes(victim.read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", f"{tmp_path / 'empty'} is no capture that can be read"), ("cut", victim.name)):
        ended = command("ns-train", *train_arguments(tmp_path / name, tmp_path), cwd=tmp_path)
        assert ended.code == 1, ended.output
        last = ended.output.splitlines()[-1]
        assert last.startswith("ns-train: ") and said in last and "Traceback" not in ended.output
        assert not run_of(tmp_path).checkpoints()


Damage = Callable[[Run], object]


def removed(name: str) -> Damage:
    return lambda run: shutil.move(run.folder / name, run.folder / "away")


def written(name: str, content: str) -> Damage:
    return lambda run: (run.folder / name).write_text(content)


OTHER_METHOD = "method_name: nerfacto\npipeline: {model: {}}\ntimestamp: t\nvis: viewer\n"
REFUSED: list[tuple[str, Damage | None, str]] = [
    ("refine --round 7", None, "has no round 7: it has planned round 1, 2"),
    ("refine --views 0", None, "--views 0 refines nothing"),
    (
        "refine --refiner see3d --pipeline.refiner.see3d.weights nowhere",
        None,
        "the refiner see3d cannot run here.*nowhere",
    ),
    ("refine", removed("rounds"), "has no round 1: it has planned no round yet"),
    ("refine", removed("rounds/round_1/plan.json"), "round 1 of .* has native views alone"),
    ("refine", removed("nerfstudio_models"), "no checkpoint"),
    ("refine", removed("config.yml"), r"config\.yml does not exist"),
    ("refine", written("config.yml", OTHER_METHOD), "is a run of nerfacto: only runs of closeup-gs have rounds"),
    ("refine", written("rounds/round_1/plan.json", '{"plans": []}'), "no target"),
    ("path --target 0 0 50", None, "behind or beside every camera"),
    ("eval --renders x", None, "either --load-config"),
]


@pytest.mark.parametrize(("words", "damage", "said"), REFUSED)
def test_what_a_command_cannot_do_with_a_run_is_one_line(
    words: str, damage: Damage | None, said: str, copied: Run, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """In this process: most is refused before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    if damage is not None:
        damage(copied)
    command, *options = words.split()
    before = copied.decided()
    with pytest.raises(SystemExit) as ended:
        main([command, "--load-config", str(copied.folder if command == "refine" else copied.config), *options])
    line = capsys.readouterr().err
    assert ended.value.code == 1 and line.startswith("closeup-gs: ") and line.count("\n") == 1
    assert re.search(said, line), line
    assert copied.decided() == before
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_of_renders_needs_its_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "--renders", str(tmp_path)])
    assert "--renders needs --cameras" in capsys.readouterr().err
