"""A run's folder: one process at a time, one run, nothing left over; rounds that come along whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from closeup_ns.atomic import PARTIAL
from closeup_ns.errors import DiskError, RoundStorageError, RunFolderError
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.studio.run_folder import hold_folder, inherit_rounds, refuse_used_folder
from tests.stored import a_view
from tests.tiny import tiny_config

HOLD = "import sys; from pathlib import Path; from closeup_ns.studio.run_folder import hold_folder as h\n"
HOLD += "h(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def a_run(folder: Path) -> Path:
    """The checkpoint folder of a run with rounds."""
    (folder / "nerfstudio_models").mkdir(parents=True)
    store = RoundStore(folder / "rounds")
    store.save_plan(1, StoredPlan([]))
    store.save_view(1, "update_00", a_view())
    (folder / "rounds/round_1/views" / f"{PARTIAL}update_01-abcdefgh.json").write_text("{")
    return folder / "nerfstudio_models"


# One process at a time


def test_a_folder_that_another_process_holds_is_refused_with_its_name_until_that_is_killed(tmp_path: Path) -> None:
    models = a_run(tmp_path / "run")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(models.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        for attempt in (lambda: hold_folder(models.parent), lambda: inherit_rounds(models, tmp_path / "new")):
            with pytest.raises(
                RunFolderError, match=rf"is being written by process {other.pid} on .* since .*--timestamp"
            ):
                attempt()
    finally:
        other.kill()
        other.communicate()
    hold_folder(models.parent)
    hold_folder(models.parent)  # the same process, once more
    inherit_rounds(models, tmp_path / "new")
    assert (tmp_path / "new/rounds/round_1/plan.json").exists()


def test_what_a_killed_process_left_is_gone_once_the_folder_is_held(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run").parent
    (folder / f"{PARTIAL}checkpoint-abc").mkdir()
    (folder / f"{PARTIAL}checkpoint-abc/step-000000007.ckpt").write_bytes(b"half")
    (folder / "rounds" / f"{PARTIAL}report-abcdefgh.html").write_text("<")
    hold_folder(folder)
    assert not list(folder.rglob(f"{PARTIAL}*"))
    assert RoundStore(folder / "rounds").views(1) == ["update_00"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write .*file/run/.lock"):
        hold_folder(tmp_path / "file" / "run")


# One run


@pytest.mark.parametrize(
    ("there", "start", "refused"),
    [
        ((), None, False),
        (("config.yml",), None, False),
        (("rounds/round_1/",), None, True),
        (("nerfstudio_models/step-000000001.ckpt",), None, True),
        (("nerfstudio_models/step-000000001.ckpt",), "own", False),
        (("nerfstudio_models/step-000000001.ckpt",), "other", True),
        (("rounds/round_1/",), "other", False),  # brought from there by a resumption that was killed
    ],
)
def test_a_used_folder_is_only_trained_in_to_resume_it(
    tmp_path: Path, there: tuple[str, ...], start: str | None, refused: bool
) -> None:
    config = tiny_config(tmp_path / "my capture", tmp_path / "out")
    folder = config.get_base_dir()
    models = folder / "nerfstudio_models"
    for name in there:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    config.load_dir = {"own": models, "other": tmp_path / "other/nerfstudio_models", None: None}[start]
    if not refused:
        refuse_used_folder(config)
        return
    with pytest.raises(RunFolderError) as caught:
        refuse_used_folder(config)
    said = str(caught.value)
    resume, beside = said.partition("Resume it: ")[2].split("   or train beside it: ")
    assert f"--load-dir {models}" in resume and f"--timestamp {config.timestamp}" in resume
    assert f"--data '{tmp_path / 'my capture'}'" in beside and "--timestamp" not in beside


# Rounds come along


def test_rounds_come_along_once(tmp_path: Path) -> None:
    inherit_rounds(tmp_path / "a run without/nerfstudio_models", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    models, new = a_run(tmp_path / "old"), tmp_path / "new"
    inherit_rounds(models, new)
    plan = (new / "rounds/round_1/plan.json").read_text()
    assert plan == (models.parent / "rounds/round_1/plan.json").read_text()
    RoundStore(models.parent / "rounds").save_verdict(1, {"accepted": True, "reason": ""})
    inherit_rounds(models, new)
    inherit_rounds(models, models.parent)  # a run that goes on in its own folder
    assert not (new / "rounds/round_1/verdict.json").exists()
    assert [path.name for path in new.iterdir()] == ["rounds"] and not list(new.rglob(f"{PARTIAL}*"))


def test_a_damaged_view_is_named_where_it_is_and_not_where_it_would_be_copied_to(tmp_path: Path) -> None:
    """Deleting the copy would bring it back at the next attempt."""
    models = a_run(tmp_path / "old")
    header = models.parent / "rounds/round_1/views/update_00.json"
    header.write_text(header.read_text()[:100])
    with pytest.raises(RoundStorageError, match=f"{header} cannot be read .*Delete it"):
        inherit_rounds(models, tmp_path / "new")
    header.unlink()
    inherit_rounds(models, tmp_path / "new")
    assert RoundStore(tmp_path / "new/rounds").views(1) == []


def test_a_copy_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = a_run(tmp_path / "old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskError, match="rounds: No space left on device. Free space"):
        inherit_rounds(models, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
