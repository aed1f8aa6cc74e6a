"""Bad input through `ns-train`: one clear error that names the thing and the way out, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.captures import write_llff, write_transforms
from tests.integration.commands import Finished, fork
from tests.integration.runs import Run, run_of, train_arguments

pytestmark = pytest.mark.integration


def resumed(copied: Run, capture: Path, output: Path, **changes: object) -> Finished:
    """The rounds of a run whose base phase is done, begun anew with other options."""
    start = copied.models / "step-000000059.ckpt"
    return fork("ns-train", *train_arguments(capture, output, load_checkpoint=start, **changes), cwd=output)


def last_line(ended: Finished) -> str:
    """The message of the exception that ended the process."""
    assert ended.code == 1, ended.output
    return " ".join(ended.output[ended.output.rindex("closeup_ns.errors.") :].split())


@pytest.mark.parametrize("count", [0, 1])
def test_no_image_and_a_single_image(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "capture"
    folder.mkdir()
    if count:
        write_transforms(folder, count)
    ended = fork("ns-train", *train_arguments(folder, tmp_path), cwd=tmp_path)
    message = last_line(ended)
    assert "DataError" in message and str(folder) in message
    assert ("single image" if count else "no capture that can be read") in message
    assert not run_of(tmp_path).checkpoints()


def test_a_truncated_photograph_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    write_transforms(folder)
    victim = folder / "images" / "frame_00005.png"
    victim.write_bytes(victim.read_bytes()[:300])
    ended = fork("ns-train", *train_arguments(folder, tmp_path), cwd=tmp_path)
    message = last_line(ended)
    assert "DataError" in message and victim.name in message


def test_poses_that_are_not_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "capture"
    write_llff(folder)
    rows = np.load(folder / "poses_bounds.npy")
    rows[3, 2] = np.nan
    np.save(folder / "poses_bounds.npy", rows)
    ended = fork("ns-train", *train_arguments(folder, tmp_path), cwd=tmp_path)
    assert "poses_bounds.npy" in last_line(ended)


def test_a_target_behind_every_camera(finished: Run, copied: Run, capture: Path, tmp_path: Path) -> None:
    ended = resumed(copied, capture, tmp_path, pipeline__target__xyz="0 0 60")
    message = last_line(ended)
    assert "PlanningError" in message and "behind or beside every camera" in message
    assert copied.decided() == finished.decided()
    assert not list(run_of(tmp_path).rounds.glob("round_*"))


def test_a_pixel_of_no_photograph(copied: Run, capture: Path, tmp_path: Path) -> None:
    ended = resumed(copied, capture, tmp_path, pipeline__target__pixel="nothing.png:3:4")
    assert "none is called nothing.png" in last_line(ended)


@pytest.mark.parametrize("option", ["candidates", "anchors", "updates"])
def test_zero_of_what_a_plan_needs(capture: Path, tmp_path: Path, option: str) -> None:
    ended = fork("ns-train", *train_arguments(capture, tmp_path, **{f"pipeline__planner__{option}": 0}), cwd=tmp_path)
    assert ended.code != 0
    assert "must be at least 1" in ended.text and option in ended.text
    assert not run_of(tmp_path).checkpoints()


def test_fewer_photographs_than_anchors_still_trains(tmp_path: Path) -> None:
    """Three to train on, five anchors wanted: a warning, and a run with three."""
    write_transforms(tmp_path / "capture", 4)
    changes = {"pipeline__planner__anchors": 5, "pipeline__schedule__rounds": 1}
    ended = fork("ns-train", *train_arguments(tmp_path / "capture", tmp_path, **changes), cwd=tmp_path)
    assert ended.code == 0, ended.output
    assert len(run_of(tmp_path).json("round_1", "plan.json")["plans"][0]["anchors"]) == 3
    assert "Plan:" in ended.output


def test_a_target_in_empty_space_is_a_warning(copied: Run, capture: Path, tmp_path: Path) -> None:
    """In the middle between the cameras and the wall."""
    point = np.array(copied.json("targets.json")["targets"][0]["point"])
    plan = copied.json("round_1", "plan.json")["plans"][0]
    camera = np.array(plan["anchors"][0]["view"]["c2w"])[:3, 3]
    middle = " ".join(f"{value:.5f}" for value in (point + camera) / 2)
    ended = resumed(copied, capture, tmp_path, pipeline__target__xyz=middle, pipeline__schedule__rounds=1)
    assert "Target:" in ended.output and "reliable" in ended.text
    assert ended.code == 0 or "PlanningError" in last_line(ended)


def test_a_round_that_cannot_be_written_says_so(copied: Run, capture: Path, tmp_path: Path) -> None:
    """The run's folder cannot hold rounds: a file is in their place."""
    folder = run_of(tmp_path).folder
    folder.mkdir(parents=True)
    (folder / "rounds").write_text("in the way")
    ended = resumed(copied, capture, tmp_path)
    assert "DiskError" in (message := last_line(ended)) and str(folder / "rounds") in message


def test_photographs_are_never_changed(tmp_path: Path) -> None:
    """A run reads its capture and writes elsewhere."""
    folder = tmp_path / "capture"
    write_transforms(folder)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    arguments = train_arguments(folder, tmp_path / "out", pipeline__schedule__rounds=1)
    ended = fork("ns-train", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.output
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert after == before
    with Image.open(next(folder.rglob("*.png"))) as image:
        assert image.size == (64, 48)
