"""The ground truth is never read during training: shown by taking it away, and by recording every file opened."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest

from closeup_ns.cli.demo import Demo
from tests.data.demo_small import CLOSE, FAR, SIZE, small_demo

pytestmark = [pytest.mark.slow, pytest.mark.integration]

# Runs in every Python process that has its folder on PYTHONPATH, before anything else. Standing for open(), os.open,
# os.listdir and os.scandir of the training process and of all that it starts.
RECORDER = textwrap.dedent(
    """
    import os, sys
    log = os.open(os.environ["CLOSEUP_OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def note(event, arguments):
        if event in ("open", "os.listdir", "os.scandir", "os.chdir", "os.rename", "os.link", "os.symlink"):
            os.write(log, f"{event}\\t{arguments[0]!r}\\n".encode("utf8", "replace"))
    sys.addaudithook(note)
    """
)


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """A demo on a copy of the small scene with a dozen steps per training, one of them a round."""
    shutil.copytree(small_demo()[0], tmp_path / "scene")
    few = ("--pipeline.model.num-downscales", "0")
    return Demo(tmp_path, 3, SIZE, FAR, CLOSE, base_steps=12, rounds=1, round_steps=4, train_options=few)


def test_training_opens_nothing_of_the_truth_and_works_without_it(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hook, opened = tmp_path / "hook", tmp_path / "opened.txt"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("CLOSEUP_OPENED", str(opened))
    for training in demo.trainings():
        if training.key == "closeup":
            # Taken away for the run that has rounds: what cannot be found cannot be read, by C++ code neither.
            shutil.move(demo.scene_folder / "truth", tmp_path / "elsewhere")
        demo.train(training)
    read = opened.read_text().splitlines()
    photographs = json.loads((demo.scene_folder / "capture" / "transforms.json").read_text())["train_filenames"]
    for name in photographs:
        assert any(f"capture/{name}" in line for line in read), f"the recorder missed {name}: it proves nothing"
    for word in ("truth", "elsewhere", "closeup_03x", "closeup_09x", "closeup_27x"):
        assert not [line for line in read if word in line]


def test_the_whole_demo_reports_on_every_method(demo: Demo) -> None:
    report = demo.main()
    assert set(report["methods"]) == {"plain", "base", "closeup", "bicubic"}
    for key, method in report["methods"].items():
        expected = {"3x", "9x", "27x"} | ({"far"} if key != "bicubic" else set())
        assert set(method["scales"]) == expected
        assert all(0 < scale["psnr"] < 60 for scale in method["scales"].values())
    assert sorted(path.name for path in (demo.output / "pictures").iterdir()) == [
        "27x.png",
        "3x.png",
        "9x.png",
        "far.png",
    ]
    logs = list(demo.output.glob("runs/*/*/*/train.log"))
    before = {log: log.stat().st_mtime_ns for log in logs}
    assert demo.main()["methods"] == report["methods"]
    assert {log: log.stat().st_mtime_ns for log in logs} == before, "a finished training was repeated"
