"""Every command of nerfstudio, and ours, on one finished run: offline, on the CPU."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.commands import command, fork, require_open3d
from tests.integration.runs import Run

pytestmark = pytest.mark.integration
FRAMES = 6


@pytest.fixture(scope="module")
def dive(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera path of `closeup-gs path`."""
    folder = tmp_path_factory.mktemp("path")
    path = folder / "camera_path.json"
    ended = fork(
        "closeup-gs", "path", "--load-config", finished.config, "--output", path, "--seconds", 1, "--fps", FRAMES,
        "--zoom", 9, cwd=folder,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    return path


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in sorted(folder.rglob("*.*g"))]


def test_eval_writes_the_metrics_of_the_held_out_photographs(copied: Run, tmp_path: Path) -> None:
    """Really started, as a user does, on a run that was copied. LPIPS has no weights offline: absent, and not zero."""
    moved = Run(tmp_path / "a copy")
    shutil.move(copied.folder, moved.folder)
    (tmp_path / "elsewhere").mkdir()
    ended = command("ns-eval", "--load-config", moved.config, "--output-path", "eval.json", cwd=tmp_path / "elsewhere")
    assert ended.code == 0, ended.output
    content = json.loads((tmp_path / "elsewhere/eval.json").read_text())
    assert Path(content["checkpoint"]).resolve() == moved.checkpoints()[-1].resolve()
    results = content["results"]
    reported = moved.json("round_2", "report.json")["evaluation_psnr"]["after"]
    assert results["psnr"] == pytest.approx(reported, abs=0.05)
    assert 0 < results["ssim"] <= 1
    assert "lpips" not in results or 0 < results["lpips"] < 2
    assert {name for name in results if name.startswith("kernel_")} >= {"kernel_variance", "kernel_supersample"}
    missing = results.pop("missing")
    assert all(math.isfinite(value) for value in results.values())
    # The run's rounds went to 3x and 9x; DINO and MetaIQA have no weights here, so they are absent with a reason.
    assert {f"close_reliable_share{scale}" for scale in ("", "_3x", "_9x")} <= set(results)
    assert all(0 <= value <= 1 for name, value in results.items() if name.startswith("close_reliable_share"))
    for name in ("dino", "metaiqa"):
        assert (name in missing) != (f"close_{name}_3x" in results)


def test_a_camera_path_comes_closer_and_renders_as_images(finished: Run, dive: Path, tmp_path: Path) -> None:
    """Really started, as a user does."""
    content = json.loads(dive.read_text())
    assert len(content["camera_path"]) == FRAMES
    target = np.array(finished.json("targets.json")["targets"][0]["point"])
    positions = [np.array(frame["camera_to_world"]).reshape(4, 4)[:3, 3] for frame in content["camera_path"]]
    distances = [float(np.linalg.norm(position - target)) for position in positions]
    assert distances[-1] < distances[0] / 2
    ended = command(
        "ns-render", "camera-path", "--load-config", finished.config, "--camera-path-filename", dive,
        "--output-path", tmp_path / "frames", "--output-format", "images", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    frames = pictures(tmp_path / "frames")
    assert len(frames) == FRAMES
    assert all(frame.shape == (48, 64, 3) and frame.std() > 3 for frame in frames)
    assert np.abs(frames[0] - frames[-1]).mean() > 3


@pytest.mark.parametrize("kind", ["orbit", "pull-back"])
def test_the_other_kinds_of_path(finished: Run, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "path.json"
    ended = fork(
        "closeup-gs", "path", "--load-config", finished.config, "--kind", kind, "--output", path, "--frames", 3,
        "--degrees", 20, "--beyond", 1.2, cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    content = json.loads(path.read_text())
    target = np.array(content["closeup"]["target"])
    poses = [np.array(frame["camera_to_world"]).reshape(4, 4) for frame in content["camera_path"]]
    away = [float(np.linalg.norm(pose[:3, 3] - target)) for pose in poses]
    assert len(poses) == 3 and content["closeup"]["kind"] == kind
    assert away[0] == pytest.approx(away[1], rel=0.01) if kind == "orbit" else away[0] < away[1] < away[2]


def test_a_camera_path_renders_as_a_video(finished: Run, dive: Path, tmp_path: Path) -> None:
    video = tmp_path / "dive.mp4"
    ended = fork(
        "ns-render", "camera-path", "--load-config", finished.config, "--camera-path-filename", dive,
        "--output-path", video, cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    assert video.read_bytes()[4:8] == b"ftyp" and video.stat().st_size > 1000


def test_the_data_set_is_rendered_like_its_photographs(finished: Run, capture: Path, tmp_path: Path) -> None:
    ended = fork(
        "ns-render", "dataset", "--load-config", finished.config, "--output-path", tmp_path / "dataset",
        "--rendered-output-names", "rgb", "--split", "test", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    rendered = sorted(path for path in (tmp_path / "dataset").rglob("*") if path.is_file())
    held_out = json.loads((capture / "transforms.json").read_text())["test_filenames"]
    assert sorted(path.stem for path in rendered) == sorted(Path(name).stem for name in held_out)
    for path in rendered:
        photograph = np.asarray(Image.open(capture / "images" / f"{path.stem}.png"), dtype=float)
        render = np.asarray(Image.open(path).convert("RGB"), dtype=float)
        assert render.shape == photograph.shape
        assert -10 * np.log10(np.square((render - photograph) / 255).mean()) > 10


def test_export_writes_every_visible_gaussian(finished: Run, tmp_path: Path) -> None:
    require_open3d()
    options = ("--load-config", finished.config, "--output-dir", tmp_path / "splat")
    ended = command("ns-export", "gaussian-splat", *options, cwd=tmp_path)
    assert ended.code == 0, ended.output
    content = (tmp_path / "splat" / "splat.ply").read_bytes()
    header = content[: content.index(b"end_header")].decode()
    count = int(next(line.split()[-1] for line in header.splitlines() if line.startswith("element vertex")))
    gaussians = len(finished.model()["_model.gauss_params.means"])
    assert 0.5 * gaussians <= count <= gaussians
    properties = header.count("property float")
    assert {"scale_0", "rot_3", "opacity", "f_dc_2"} <= set(header.split())
    body = np.frombuffer(content[content.index(b"end_header") + 11 :], dtype="<f4")
    assert body.size == count * properties and np.isfinite(body).all()
