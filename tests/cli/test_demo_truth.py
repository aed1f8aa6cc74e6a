"""The ground truth is never read during training: shown by taking it away, and by recording every file opened."""

from __future__ import annotations

import json
import shutil
import textwrap

import pytest

from closeup_ns.cli.demo import Demo
from tests.data.demo_small import CLOSE, FAR, SIZE, small_demo

pytestmark = [pytest.mark.slow, pytest.mark.integration]

# Runs first in every Python process that has its folder on PYTHONPATH: notes each open(), os.open,
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, list[str]]:
    """A demo of a copy of the small scene after its three trainings, and a line per file or folder they opened.

    The truth was away during the run that has a round: what is not there cannot be read, by C++ code neither.
    """
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(small_demo()[0], folder / "scene")
    hook, opened = folder / "hook", folder / "opened.txt"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(RECORDER)
    demo = Demo(folder, 3, SIZE, FAR, CLOSE, base_steps=150, rounds=1, round_steps=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(hook))
        patch.setenv("CLOSEUP_OPENED", str(opened))
        for training in demo.trainings():
            if training.key == "closeup":
                shutil.move(demo.scene_folder / "truth", folder / "elsewhere")
            demo.train(training)
    shutil.move(folder / "elsewhere", demo.scene_folder / "truth")
    return demo, opened.read_text().splitlines()


def test_training_opens_nothing_of_the_truth(trained: tuple[Demo, list[str]]) -> None:
    demo, opened = trained
    photographs = json.loads((demo.scene_folder / "capture" / "transforms.json").read_text())["train_filenames"]
    for name in photographs:
        assert any(f"capture/{name}" in line for line in opened), f"the recorder missed {name}: it proves nothing"
    secrets = ["/truth", "elsewhere", "demo.json", *(path.name for path in demo.scene_folder.glob("truth/images/*"))]
    assert len(secrets) == 3 + 3 * CLOSE
    for secret in secrets:
        assert not [line for line in opened if secret in line]


def test_the_report_has_every_method_and_a_second_demo_trains_nothing(trained: tuple[Demo, list[str]]) -> None:
    demo, _ = trained
    logs = {log: log.stat().st_mtime_ns for log in demo.output.glob("runs/*/*/*/train.log")}
    report = demo.main()
    assert len(logs) == 3
    assert {log: log.stat().st_mtime_ns for log in logs} == logs, "a finished training was repeated"
    assert set(report["methods"]) == {"plain", "base", "closeup", "bicubic"}
    for key, method in report["methods"].items():
        assert set(method["scales"]) == {"3x", "9x", "27x"} | ({"far"} if key != "bicubic" else set())
        assert all(0 < scale["psnr"] < 60 for scale in method["scales"].values())
    assert {path.name for path in (demo.output / "pictures").iterdir()} == {"far.png", "3x.png", "9x.png", "27x.png"}
