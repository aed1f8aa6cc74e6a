"""A capture with originals: rounds of native views through the real commands, without any refiner."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.model.kernel import PixelKernel
from tests.integration.captures import SIZE, write_transforms
from tests.integration.commands import Finished, fork
from tests.integration.runs import Run, run_of, train_arguments

pytestmark = pytest.mark.integration
FINER = 3
OPTIONS = {
    "pipeline__refiner__kind": "auto",
    "pipeline__schedule__rounds": 3,
}
"""As a user would start it."""


def train(capture: Path, output: Path, timestamp: str, **changes: object) -> Finished:
    arguments = train_arguments(capture, output, timestamp, **{**OPTIONS, **changes})
    return fork("ns-train", *arguments, "closeup-data", "--max-image-size", str(SIZE[0]), cwd=output)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 192x144 and images_3; one original is of another photograph, one is cut off."""
    folder = tmp_path_factory.mktemp("originals")
    write_transforms(folder, finer=FINER)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (144, 192, 3), np.uint8)).save(
        folder / "images/frame_00001.png"
    )
    whole = (folder / "images/frame_00002.png").read_bytes()
    (folder / "images/frame_00002.png").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def ended(capture: Path, output: Path) -> Finished:
    return train(capture, output, "t")


@pytest.fixture(scope="module")
def run(ended: Finished, output: Path) -> Run:
    assert ended.code == 0, ended.output
    return run_of(output)


def test_rounds_reach_as_far_as_the_originals(run: Run, ended: Finished) -> None:
    assert "originals 192x144, 3.0x finer than trained on" in ended.text
    assert "Rounds: 1 of 3 are planned" in ended.text
    assert "measured on" in ended.text and "held-out photographs:" not in ended.text
    assert len(PixelKernel.from_tensor(run.model()["_model.screen_kernel"]).taps) > 1
    assert run.state()["step"] == 60 + 12 - 1
    frames = run.json("round_1", "native", "transforms.json")["frames"]
    assert len(frames) == 8
    for frame in frames:
        with Image.open(run.rounds / "round_1/native" / frame["file_path"]) as image:
            assert image.size == (64, 48) == (frame["w"], frame["h"])
    report = run.json("round_1", "report.json")
    assert report["native_views"] == 8 and report["views"] == {}
    assert report["verdict"]["accepted"] and report["verdict"]["photographs_round"] is None  # no trial of photographs
    assert (run.rounds / "round_1/close_photographs.png").is_file()


def test_an_original_that_cannot_be_used_is_named(ended: Finished) -> None:
    assert "frame_00001.png: its original" in ended.text and "shows another picture" in ended.text
    assert "No native view of frame_00002.png" in ended.text


def test_poses_are_refined_and_kept_with_the_run(run: Run) -> None:
    motion = run.state()["pipeline"]["datamanager._extra_state"]
    frames = run.json("round_1", "native/transforms.json")["frames"]
    assert motion.keys() == {f"native1/{Path(frame['file_path']).stem}" for frame in frames}
    assert any(bool(moved.any()) for moved in motion.values())
    assert bool(run.model()["_model.native_kernels"][0].any())


def test_ns_eval_scores_held_out_photographs_at_full_size(run: Run, tmp_path: Path) -> None:
    ended = fork("ns-eval", "--load-config", run.config, "--output-path", tmp_path / "eval.json", cwd=tmp_path)
    assert ended.code == 0, ended.output
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    point = ", ".join(f"{value:.3f}" for value in run.json("targets.json")["targets"][0]["point"])
    assert f"Target: ({point})" in ended.text  # the one that the rounds went to, not one found anew
    for key in (
        "close_photo_psnr_3x",
        "close_photo_psnr_registered_3x",
        "close_photo_ssim_3x",
        "close_photo_cc_psnr_3x",
        "photo_psnr_registered",
        "close_photo_count_3x",
    ):
        assert results[key] > 0
    assert results["close_photo_psnr_registered_3x"] > results["close_photo_psnr_3x"] - 0.5


def test_resuming_needs_no_originals(capture: Path, tmp_path: Path) -> None:
    """Stopped in the only round; then the originals are gone. No schedule was stored, since all rounds were planned."""
    data = tmp_path / "data"
    shutil.copytree(capture, data)
    stopped = train(data, tmp_path, "stopped", max_num_iterations=66, pipeline__schedule__rounds=1)
    assert stopped.code == 0, stopped.output
    shutil.rmtree(data / "images")
    options = {"load_dir": run_of(tmp_path, "stopped").models, "pipeline__schedule__rounds": 1}
    resumed = train(data, tmp_path, "resumed", **options)
    assert resumed.code == 0, resumed.output
    assert run_of(tmp_path, "resumed").json("round_1", "report.json")["native_views"] == 8
    assert torch.isfinite(run_of(tmp_path, "resumed").model()["_model.gauss_params.means"]).all()


def test_a_round_without_a_crop_and_without_a_refiner_is_left_out(tmp_path: Path) -> None:
    """Every original is cut off, which its header does not tell."""
    write_transforms(tmp_path / "data", finer=FINER)
    for original in (tmp_path / "data/images").iterdir():
        original.write_bytes(original.read_bytes()[:-2000])
    ended = train(tmp_path / "data", tmp_path, "none")
    assert ended.code == 0, ended.output
    assert "Round 1 is left out and the run ends" in ended.text
    assert run_of(tmp_path, "none").state()["step"] == 60  # it stops after the step that it was about to train
    assert run_of(tmp_path, "none").json("schedule.json")["rounds"] == 0
