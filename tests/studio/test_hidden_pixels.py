"""What lies under a mask or under transparency is not of the scene: it reaches neither seeds nor judges nor rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.rounds.known import observations
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.trials.trial import eval_psnr, photograph_psnr
from closeup_ns.studio.datamanager import CloseupDatamanager
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.viewer.picture.evidence import gather_evidence
from tests.data.folders import save_image
from tests.integration.captures import write_transforms
from tests.trainers import MakeTrainer

HIDDEN = (slice(8, 34), slice(20, 46))
"""Rows and columns, in every photograph: in its middle, where the target is."""
WAYS = ["mask", "alpha"]
SHORT: dict[str, Any] = {
    "pipeline__schedule__base_steps": 20,
    "pipeline__schedule__rounds": 1,
    "pipeline__schedule__round_steps": 6,
}


def write_hidden(folder: Path, way: str, colour: tuple[int, int, int]) -> Path:
    """Photographs that have ``colour`` where it does not count. No points: the model starts from the photographs."""
    write_transforms(folder, points=False)
    meta = json.loads((folder / "transforms.json").read_text())
    for frame in meta["frames"]:
        path = folder / frame["file_path"]
        pixels = np.array(Image.open(path))
        pixels[HIDDEN] = colour
        counts = np.full(pixels.shape[:2], 255, np.uint8)
        counts[HIDDEN] = 0
        save_image(path, pixels if way == "mask" else np.dstack([pixels, counts]))
        if way == "mask":
            frame["mask_path"] = f"masks/{path.name}"
            save_image(folder / frame["mask_path"], counts)
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def outcome(trainer: CloseupTrainer) -> dict[str, Any]:
    """Everything that a run decides and learns from its photographs."""
    pipeline = trainer.pipeline
    result: dict[str, Any] = {
        f"seed {name}": value.detach().clone() for name, value in pipeline.model.named_parameters()
    }
    trainer.train()
    result |= {f"trained {name}": value.detach() for name, value in pipeline.model.named_parameters()}
    store = RoundStore(trainer.base_dir / "rounds")
    for name in store.views(1):
        view = store.load_view(1, name)
        result |= {f"{name} image": view.image, f"{name} real": view.real, f"{name} reliable": view.reliable.color}
    result["verdict"] = store.load_verdict(1)
    result["photographs"] = photograph_psnr(pipeline.as_run(), [0, 1, 2])
    result["evaluation"] = eval_psnr(pipeline.as_run())
    return result


@pytest.mark.parametrize("way", WAYS)
def test_hidden_colours_change_nothing(way: str, tmp_path: Path, make_trainer: MakeTrainer) -> None:
    """Two captures that differ only in what does not count make the same run, to the bit."""
    outcomes = []
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 40, 255))):
        capture = write_hidden(tmp_path / name, way, colour)
        outcomes.append(outcome(make_trainer(data=capture, output=tmp_path / f"{name}-out", **SHORT)))
    red, blue = outcomes
    assert red.keys() == blue.keys() and any(name.endswith("reliable") for name in red)
    for name, value in red.items():
        same = torch.equal(value, blue[name]) if isinstance(value, torch.Tensor) else value == blue[name]
        assert same, name


@pytest.mark.parametrize("way", WAYS)
def test_hidden_pixels_and_those_beside_them_back_nothing(way: str, tmp_path: Path, make_trainer: MakeTrainer) -> None:
    pipeline = make_trainer(data=write_hidden(tmp_path / "capture", way, (255, 0, 0))).pipeline
    rows, columns = HIDDEN
    wide = torch.zeros(48, 64, dtype=torch.bool)
    wide[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1] = True
    for index, observation in enumerate(observations(pipeline.as_run()).values()):
        rendered = pipeline.model.render_view(observation.view).depth
        assert torch.equal(observation.depth, torch.where(wide, 0.0, rendered))
        shown = pipeline.datamanager.shown(index)
        assert shown is not None and torch.equal(shown, ~wide)
    store = RoundStore(tmp_path / "none")
    photographs, _ = gather_evidence(pipeline.as_run(), store, pipeline.model.render_view, 32, limit=2, say=print)
    for photograph in photographs:
        assert (photograph.depth[4:17, 10:23] == 0).all() and (photograph.depth[:3] > 0).any()


def test_photographs_without_masks_show_everything(trainer: CloseupTrainer) -> None:
    data: CloseupDatamanager = trainer.pipeline.datamanager
    assert data.shown(0) is None and data.counted(0) is None


def test_transparent_pixels_show_the_models_background(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    """An empty model then agrees with an empty photograph, whatever colour lies under the transparency."""
    capture = write_hidden(tmp_path / "capture", "alpha", (255, 0, 0))
    pipeline = make_trainer(data=capture, pipeline__model__background_color="white").pipeline
    assert pipeline.model.training
    assert torch.equal(pipeline.datamanager.photograph(0)[HIDDEN], torch.ones(26, 26, 3))
    _, image, mask = pipeline.datamanager.eval_photographs()[0]
    assert torch.equal(image[HIDDEN], torch.ones(26, 26, 3)) and mask is None
