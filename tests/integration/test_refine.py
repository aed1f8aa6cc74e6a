"""`closeup-gs refine` on a finished run: a round once more, into a folder of its own, killed and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from closeup_ns.cli.main import main
from tests.integration.commands import Finished, fork
from tests.integration.runs import PLANNED, Run

pytestmark = pytest.mark.integration


def refine(run: Run, *arguments: object) -> Finished:
    return fork("closeup-gs", "refine", "--load-config", run.config, *arguments, cwd=run.folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_refiner_from_the_same_checkpoint_gives_the_same_bits(copied: Run) -> None:
    """The round of a training, refined again: what it stored then. Nothing of the run changes."""
    before = files(copied.rounds)
    ended = refine(copied, "--round", 1, "--refiner", "reliable")
    assert ended.code == 0, ended.output
    again = copied.folder / "refined/round_1-reliable/round_1"
    assert "checkpoint: step 59, the round's start" in ended.text and str(again) in ended.text
    for path in sorted((copied.rounds / "round_1/exact").iterdir()):
        assert (again / "exact" / path.name).read_bytes() == path.read_bytes(), path.name
    report = json.loads((again / "report.json").read_text())
    assert report["checkpoint"] == 59 and len(report["views"]) == PLANNED
    for name, view in report["views"].items():
        assert name in ended.text and view["seconds"] > 0 and view["refiner"] == "reliable" and not view["generates"]
    assert (again / "contact_sheet.png").stat().st_size > 1000 and (again / "transforms.json").is_file()
    assert files(copied.rounds) == before


# Bad input: in this process, since nothing is loaded before it is refused


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["refine", *map(str, arguments)])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_round_that_the_run_has_not_planned(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--load-config", finished.folder, "--round", 7)
    assert "has no round 7: it has planned round 1, 2" in said


def test_a_run_without_rounds(copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied.rounds)
    assert "has no round 1: it has planned no round yet" in refusal(capsys, "--load-config", copied.config)


def test_a_run_of_another_method(copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    copied.config.write_text("method_name: nerfacto\npipeline: {model: {}}\n")
    assert "is a run of nerfacto: only runs of closeup-gs have rounds" in refusal(
        capsys, "--load-config", copied.config
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"plans": [{"round_index": 1}]}', '{"plans": 3}', '{"plans": []}', "{}"]
)
def test_a_plan_that_cannot_be_read(copied: Run, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (copied.rounds / "round_1/plan.json").write_text(content)
    said = refusal(capsys, "--load-config", copied.config)
    assert "plan.json cannot be read" in said


def test_a_run_whose_checkpoints_are_gone(copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied.models)
    assert "holds no checkpoint" in refusal(capsys, "--load-config", copied.config)


def test_no_run_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in refusal(capsys, "--load-config", tmp_path / "config.yml")
    assert "does not exist" in refusal(capsys, "--load-config", tmp_path)


def test_weights_that_are_not_there(finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--load-config", finished.config, "--refiner", "see3d", "--weights", tmp_path)
    assert "the refiner see3d cannot run here" in said and str(tmp_path) in said


def test_options_of_what_was_not_chosen(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--load-config", finished.config, "--refiner", "reliable", "--weights", "tiny")
    assert "--weights are for --refiner see3d" in said
    assert "refines nothing" in refusal(capsys, "--load-config", finished.config, "--views", 0)
