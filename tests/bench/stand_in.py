"""A scene of a few pixels, and a trainer that leaves behind what ns-train would."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from closeup_ns.bench.experiment import Experiment, scene_folder
from closeup_ns.bench.methods import Budget, Method
from closeup_ns.bench.scenes.prepared import SceneRecord
from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.data.pictures import write_picture
from closeup_ns.evaluation.evaluate import EvaluationConfig
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View, look_at

WIDTH, HEIGHT = 24, 18
REAL_PYTHON = sys.executable
PLAIN = Method("plain", "plain splats", nerfstudio="closeup-gs", rounds=0)

TRAINER = """
import json, pathlib, sys, zipfile
arguments = sys.argv[1:]
after = lambda name: arguments[arguments.index(name) + 1]
run = pathlib.Path(after("--output-dir")) / after("--experiment-name") / arguments[2] / after("--timestamp")
models = run / "nerfstudio_models"
models.mkdir(parents=True, exist_ok=True)
with open(CALLS, "a") as calls:
    calls.write(json.dumps(arguments) + chr(10))
with zipfile.ZipFile(models / "step-000000009.ckpt", "w") as checkpoint:
    checkpoint.writestr("data", "weights")
AFTER_CHECKPOINT
(run / "config.yml").write_text("config")
"""


def write_scene(out: Path, protocol: str = "tiny", scene: str = "small", **changes: object) -> Path:
    """Three photographs to train on, a far view and a close-up with their truth."""
    folder, views = scene_folder(out, protocol, scene), [_view(x) for x in (-0.2, 0.0, 0.2)]
    photographs = []
    for index, view in enumerate(views):
        path = folder / "capture" / "images" / f"p{index}.png"
        write_picture(path, _picture(index))
        photographs.append(EvalCamera(f"p{index}", 1.0, view, path))
    write_cameras(folder / "capture" / "transforms.json", photographs)
    cameras = []
    for name, scale in (("far", 1.0), ("near", 3.0)):
        path = folder / "truth" / f"{name}.png"
        write_picture(path, _picture(7))
        cameras.append(EvalCamera(name, scale, _view(0.1, 2.0 / scale), path))
    write_cameras(folder / "cameras.json", cameras)
    settings: dict = {"target_pixel": "p1.JPG:12:9", "target_point": (0.0, 0.0, 0.0), "made_with": {"seed": 1}}
    SceneRecord(protocol, scene, **{**settings, **changes}).write(folder)
    return folder


def a_spec(method: Method = PLAIN, seed: int = 0, scene: str = "small", **changes: object) -> Experiment:
    """An experiment of that scene with ten steps."""
    settings: dict = {"budget": Budget(6, 2, 2), "evaluation": EvaluationConfig(("psnr",)), **changes}
    return Experiment("tiny", scene, method, seed, **settings)


def given_renders(folder: Path, protocol: str = "tiny", scene: str = "small") -> Path:
    """A folder with somebody else's renders of that scene."""
    below = folder / "theirs" / protocol / scene
    below.mkdir(parents=True)
    for name in ("far.png", "near.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(below / name)
    return folder / "theirs"


def put_in_pythons_place(script: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What is started with sys.executable runs this script instead, whatever its arguments."""
    written, program = folder / "script.py", folder / "python"
    written.write_text(script)
    program.write_text(f'#!/bin/sh\nexec {REAL_PYTHON} {written} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def render_grey(view: View) -> Rendered:
    """Grey everywhere."""
    grey = torch.full((view.height, view.width), 0.5)
    return Rendered(grey[..., None].expand(-1, -1, 3), grey, grey)


def option(command: list[str], name: str) -> str:
    """The value of an option."""
    return command[command.index(name) + 1]


def _view(x: float, distance: float = 2.0) -> View:
    K = torch.tensor([[20.0, 0, WIDTH / 2], [0, 20.0, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    position = torch.tensor([x, -distance, 0.1], dtype=torch.float64)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return look_at(position, torch.zeros_like(up), up, K, WIDTH, HEIGHT)


def _picture(seed: int) -> NDArray[np.uint8]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8).numpy()
