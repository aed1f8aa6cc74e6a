"""What lies under a mask or under transparency is not of the scene: it reaches neither seeds nor judges nor rounds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.planning.target import Target
from closeup_ns.planning.targets import resolve_targets
from closeup_ns.rounds.known import observations
from closeup_ns.rounds.native import cut_native_views
from closeup_ns.rounds.reporting.round_report import RoundResult, write_round_report
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.native import NativeStore
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.trials.trial import eval_psnr, photograph_psnr
from closeup_ns.studio.close_photographs import close_photographs
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.viewer.picture.evidence import gather_evidence
from closeup_ns.views.warp import pixel_grid
from tests.data.folders import save_image
from tests.integration.captures import SIZE, write_transforms
from tests.tiny import run_in
from tests.trainers import MakeTrainer

HIDDEN = (slice(8, 34), slice(20, 46))
"""Rows and columns, in every photograph: in its middle, where the target is."""
BESIDE = (slice(8, 34), slice(20, 32))
"""Half of that: a part of what native views show."""
Area = tuple[slice, slice]
Colour = tuple[int, int, int]
RED, BLUE = (255, 0, 0), (0, 40, 255)
WAYS = ["mask", "alpha"]
SHORT: dict[str, Any] = {
    "pipeline__schedule__base_steps": 20,
    "pipeline__schedule__rounds": 1,
    "pipeline__schedule__round_steps": 6,
}


def write_hidden(folder: Path, way: str, colour: Colour, hidden: Area = HIDDEN, finer: int = 1) -> Path:
    """Photographs that have ``colour`` where it does not count, and so do originals that are ``finer``.

    No points unless there are originals: the model starts from the photographs.
    """
    write_transforms(folder, points=finer > 1, finer=finer)
    meta = json.loads((folder / "transforms.json").read_text())
    for frame in meta["frames"]:
        path = folder / frame["file_path"]
        small = folder / (f"images_{finer}" if finer > 1 else "images") / path.name
        for file, size in {path: finer, small: 1}.items():
            where = tuple(slice(part.start * size, part.stop * size) for part in hidden)
            pixels = np.array(Image.open(file))
            pixels[where] = colour
            counts = np.full(pixels.shape[:2], 255, np.uint8)
            counts[where] = 0
            save_image(file, pixels if way == "mask" else np.dstack([pixels, counts]))
            if way == "mask":
                frame["mask_path"] = f"masks/{path.name}"
                save_image(folder / frame["mask_path"], counts)
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def with_originals(capture: Path, make: MakeTrainer, output: Path) -> tuple[Run, list[Target]]:
    """An untrained run on a capture whose originals are finer, and its target."""
    trainer = make(data=capture, output=output, pipeline__datamanager__dataparser__max_image_size=SIZE[0])
    run, data = run_in(trainer), trainer.pipeline.datamanager
    return run, resolve_targets(run.settings.target, data.photograph_names(), data.train_views(), run.render)


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
    for name, colour in (("red", RED), ("blue", BLUE)):
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
    views = pipeline.datamanager.train_views()
    for index, observation in enumerate(observations(pipeline.as_run(), views, torch.zeros(3)).values()):
        rendered = pipeline.model.render_view(observation.view).depth
        assert torch.equal(observation.depth, torch.where(wide, 0.0, rendered))
        shown = pipeline.datamanager.shown(index)
        assert shown is not None and torch.equal(shown, ~wide)
    store = RoundStore(tmp_path / "none")
    photographs, _ = gather_evidence(pipeline.as_run(), store, pipeline.model.render_view, 32, limit=2, say=print)
    for photograph in photographs:
        assert (photograph.depth[4:17, 10:23] == 0).all() and (photograph.depth[:3] > 0).any()


@pytest.mark.parametrize("way", WAYS)
def test_hidden_pixels_of_native_views_back_nothing(way: str, tmp_path: Path, make_trainer: MakeTrainer) -> None:
    capture = write_hidden(tmp_path / "capture", way, RED, BESIDE, finer=3)
    run, targets = with_originals(capture, make_trainer, tmp_path / "out")
    data = run.photographs
    data.native = cut_native_views(run, NativeStore(tmp_path / "rounds"), 1, targets)
    assert len(data.native) == 10
    seen, partly = observations(run, data.train_views(), targets[0].point), 0
    for native in data.native:
        view, whole = data.native_view(native), data.train_view(native.photograph)
        rays = (pixel_grid(view.height, view.width) - view.K[:2, 2]) / view.K[0, 0]
        column, row = (rays * whole.K[0, 0] + whole.K[:2, 2]).unbind(-1)
        rows, columns = BESIDE
        beside = torch.stack([rows.start - row, row - rows.stop, columns.start - column, column - columns.stop]).amax(0)
        hidden, clear = beside < 1 / 3, beside > 2  # a pixel of the view, two of the photograph
        assert (seen[native.name].depth[hidden] == 0).all()
        assert torch.equal(seen[native.name].depth[clear], run.render(view).depth[clear])
        partly += bool(hidden.any()) and bool(clear.any())
    assert partly > 5


@pytest.mark.parametrize("way", WAYS)
def test_hidden_colours_change_no_score(way: str, tmp_path: Path, make_trainer: MakeTrainer) -> None:
    scores = []
    for name, colour in (("red", RED), ("blue", BLUE)):
        capture = write_hidden(tmp_path / name, way, colour, BESIDE, finer=3)
        scores.append(close_photographs(*with_originals(capture, make_trainer, tmp_path / f"{name}-out"))[0])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)  # least squares round as memory lies
    assert {"close_photo_ssim_3x", "photo_cc_psnr_registered"} <= scores[0].keys()


def test_what_is_wholly_hidden_is_left_out_of_every_mean(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    capture = write_hidden(tmp_path / "capture", "mask", RED, BESIDE, finer=3)
    nothing = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    save_image(capture / "masks/frame_00003.png", nothing)  # of the evaluation split, as frame_00009
    run, targets = with_originals(capture, make_trainer, tmp_path / "out")
    scores, _ = close_photographs(run, targets)
    assert scores["close_photo_count_3x"] == 1 and all(math.isfinite(value) for value in scores.values())
    save_image(capture / "masks/frame_00009.png", nothing)
    run, targets = with_originals(capture, make_trainer, tmp_path / "out")
    result, store = RoundResult(1, 3.0), RoundStore(tmp_path / "rounds")
    result.look_before(run, targets[0])
    write_round_report(run, store, result, targets[0])
    report = store.report(1)
    assert report is not None
    assert report["evaluation_psnr"]["before"] is None and report["close_photograph_psnr"]["after"] is None


def test_transparent_pixels_show_the_models_background(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    """An empty model then agrees with an empty photograph, whatever colour lies under the transparency."""
    capture = write_hidden(tmp_path / "capture", "alpha", (255, 0, 0))
    pipeline = make_trainer(data=capture, pipeline__model__background_color="white").pipeline
    assert pipeline.model.training
    assert torch.equal(pipeline.datamanager.photograph(0)[HIDDEN], torch.ones(26, 26, 3))
    _, image, mask = pipeline.datamanager.eval_photograph(0)
    assert torch.equal(image[HIDDEN], torch.ones(26, 26, 3)) and mask is None
