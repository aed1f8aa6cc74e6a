"""Runs that were copied or whose folder is used twice, through the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.commands import fork
from tests.integration.runs import Run, files, train_arguments

pytestmark = pytest.mark.integration


def no_number(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def test_a_copied_run_is_evaluated_by_its_own_checkpoint_from_anywhere(copied: Run, tmp_path: Path) -> None:
    moved = Run(tmp_path / "a copy")
    shutil.move(copied.folder, moved.folder)
    (tmp_path / "elsewhere").mkdir()
    ended = fork("ns-eval", "--load-config", moved.config, "--output-path", "eval.json", cwd=tmp_path / "elsewhere")
    assert ended.code == 0, ended.output
    content = json.loads((tmp_path / "elsewhere/eval.json").read_text(), parse_constant=no_number)
    assert Path(content["checkpoint"]).resolve() == moved.checkpoints()[-1].resolve()
    assert content["results"]["psnr"] > 5


def test_a_second_training_in_a_used_folder_is_refused_and_changes_nothing(
    capture: Path, finished: Run, tmp_path: Path
) -> None:
    before = files(finished.folder)
    output = finished.folder.parents[2]
    changes: dict[str, object] = {"pipeline__schedule__zoom": 5}
    ended = fork("ns-train", *train_arguments(capture, output, finished.folder.name, **changes), cwd=tmp_path)
    assert ended.code == 1 and "holds a run already" in ended.text
    assert f"--load-dir {finished.models}" in ended.text and "train beside it: ns-train" in ended.text
    assert files(finished.folder) == before
