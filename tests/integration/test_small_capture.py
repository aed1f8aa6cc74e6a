"""A capture of eight photographs, one of which is held out, and what nerfstudio's commands cannot do with splats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.captures import write_transforms
from tests.integration.commands import Finished, fork, require_open3d
from tests.integration.runs import Run, files, run_of, train_arguments

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("small")
    write_transforms(folder / "capture", 8)
    before = files(folder / "capture")
    arguments = train_arguments(folder / "capture", folder, pipeline__schedule__rounds=0)
    ended = fork("ns-train", *arguments, cwd=folder)
    assert ended.code == 0, ended.output
    assert files(folder / "capture") == before  # a run reads its photographs and writes elsewhere
    return run_of(folder)


def render(run: Run, folder: Path, kind: str, *arguments: object) -> Finished:
    common = ("--load-config", run.config, "--output-path", folder / "out")
    return fork("ns-render", kind, *common, *arguments, cwd=folder)


def test_eval_writes_json_although_one_photograph_has_no_deviation(small: Run, tmp_path: Path) -> None:
    ended = fork("ns-eval", "--load-config", small.config, "--output-path", tmp_path / "eval.json", cwd=tmp_path)
    assert ended.code == 0, ended.output

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    results = json.loads((tmp_path / "eval.json").read_text(), parse_constant=refuse)["results"]
    assert results["psnr"] > 0 and results["psnr_std"] is None


REFUSED: list[tuple[str, str]] = [
    ("ns-render interpolate --pose-source eval", "1 of this capture is held out: add --pose-source train"),
    ("ns-render interpolate --pose-source train --render-nearest-camera True", "leave it out"),
    ("ns-render spiral", "closeup-gs path --kind orbit"),
    ("ns-export pointcloud", "use ns-export gaussian-splat"),
    ("ns-export poisson", "use ns-export gaussian-splat"),
    ("ns-export tsdf", "use ns-export gaussian-splat"),
    ("ns-export marching-cubes", "use ns-export gaussian-splat"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_splats_cannot_do_is_refused_with_what_to_do(small: Run, line: str, said: str, tmp_path: Path) -> None:
    command = line.split()
    if command[0] == "ns-export":
        require_open3d()
    name = "--output-path" if command[0] == "ns-render" else "--output-dir"
    ended = fork(*command, "--load-config", small.config, name, tmp_path / "out", cwd=tmp_path)
    assert ended.code == 1, ended.output
    last = ended.output.splitlines()[-1]
    assert last.startswith(f"{command[0]}: ") and said in last and "Traceback" not in ended.output


def test_pictures_with_opacity(small: Run, tmp_path: Path) -> None:
    ended = render(
        small, tmp_path, "interpolate", "--pose-source", "train", "--interpolation-steps", 1, "--image-format", "png",
        "--output-format", "images", "--rendered-output-names", "rgba",
    )  # fmt: skip
    assert ended.code == 0, ended.output
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").glob("*.png"))]
    assert pictures and all(picture.shape == (48, 64, 4) for picture in pictures)
    assert all(picture[..., 3].min() < 255 and picture[..., :3].std() > 3 for picture in pictures)


def camera_path(small: Run, folder: Path, **changes: Any) -> Path:
    """One frame, from where the first photograph was taken, for the command's own coordinates."""
    path = folder / "path.json"
    ended = fork("closeup-gs", "path", "--load-config", small.config, "--frames", 2, "--output", path, cwd=folder)
    assert ended.code == 0, ended.output
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))
    return path


def test_a_panorama_is_no_pinhole_picture_and_stereo_is_refused(small: Run, tmp_path: Path) -> None:
    options = ("--output-format", "images", "--image-format", "png")
    size = {"render_width": 120, "render_height": 60}
    path = camera_path(small, tmp_path, camera_type="equirectangular", **size)
    ended = render(small, tmp_path, "camera-path", "--camera-path-filename", path, *options)
    assert ended.code == 0, ended.output
    panorama = np.asarray(Image.open(tmp_path / "out/00000.png").convert("RGB"), dtype=float)
    # The scene is a wall before the cameras: it fills the middle, and behind them is nothing.
    assert panorama.shape == (60, 120, 3)
    assert panorama[20:40, 50:70].std() > 3
    behind = np.concatenate([panorama[:, :15], panorama[:, -15:]], axis=1)
    assert behind[20:40].std() < panorama[20:40, 50:70].std() / 2
    path = camera_path(small, tmp_path, camera_type="omnidirectional", **size)
    ended = render(small, tmp_path, "camera-path", "--camera-path-filename", path, *options)
    assert ended.code == 1
    assert "OMNIDIRECTIONALSTEREO_L cannot be rendered" in " ".join(ended.output.split())
