"""The ground truth is never read during training: shown by taking it away, and by recording every file opened."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path

import pytest

from closeup_ns.bench.methods import Budget, load_methods
from closeup_ns.bench.process import run_training
from closeup_ns.bench.scenes.prepare import prepare_scene
from closeup_ns.bench.scenes.protocol import load_protocol
from closeup_ns.bench.stages import train_command
from tests.bench.stand_in import a_spec

pytestmark = [pytest.mark.slow, pytest.mark.integration]

PROTOCOL = """
kind: rendered
scales: [3, 9, 27]
scenes: [{name: small, seed: 3, size: [96, 72], far_photos: 16, closeups: 1, finer: 2}]
"""
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


def test_training_opens_nothing_of_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth is away meanwhile: what is not there cannot be read, by C++ code neither."""
    (tmp_path / "p.yaml").write_text(PROTOCOL)
    scene = load_protocol(str(tmp_path / "p.yaml")).scenes[0]
    spec = a_spec(load_methods()["closeup-gs"], budget=Budget(150, 1, 4), quick=True)
    scene = prepare_scene("tiny", scene, tmp_path, spec.scene_folder(tmp_path))
    pictures = [path.name for path in (scene.folder / "truth" / "images").iterdir()]
    shutil.move(scene.folder / "truth", tmp_path / "elsewhere")
    hook, opened = tmp_path / "hook", tmp_path / "opened.txt"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", str(hook))
    monkeypatch.setenv("CLOSEUP_OPENED", str(opened))
    run_training(train_command(spec, scene, tmp_path), tmp_path / "log", 1)
    lines = opened.read_text().splitlines()
    transforms = json.loads((scene.capture / "transforms.json").read_text())
    for name in transforms["train_filenames"]:
        small = name.replace("images/", "capture/images_2/")
        assert any(small in line for line in lines), f"the recorder missed {small}: it proves nothing"
    for secret in ["/truth", "elsewhere", "demo.json", "cameras.json'", *pictures]:
        assert not [line for line in lines if secret in line and "rounds" not in line], secret
