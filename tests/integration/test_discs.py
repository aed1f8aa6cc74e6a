"""`closeup-gs-2dgs` from the capture to the exported discs, by nerfstudio's own commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.model.kernel import PixelKernel
from tests.integration.captures import SIZE
from tests.integration.commands import fork, require_open3d
from tests.integration.runs import Run, run_of, train_arguments

pytestmark = pytest.mark.integration
METHOD = "closeup-gs-2dgs"


@pytest.fixture(scope="module")
def discs(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run with one round and both regularisers."""
    folder = tmp_path_factory.mktemp("discs")
    changes = {"pipeline__schedule__rounds": 1, "pipeline__model__distortion_weight": 0.01}
    ended = fork("ns-train", *train_arguments(capture, folder, method=METHOD, **changes), cwd=folder)
    assert ended.code == 0, ended.output
    return run_of(folder, method=METHOD)


def test_a_run_has_its_round_and_a_pixel_that_widens_nothing(discs: Run) -> None:
    report = discs.json("round_1", "report.json")
    assert report["zoom"] == 3.0 and report["evaluation_psnr"]["after"] > 10
    assert discs.state()["step"] == 60 + 12 - 1
    model = discs.model()
    assert all(torch.isfinite(tensor).all() for tensor in model.values())
    kernel = PixelKernel.from_tensor(model["_model.screen_kernel"])
    assert (kernel.eps2d, kernel.supersample) == (0.0, 2)
    assert any(kernel.lens_blur == pytest.approx(variance) for variance in (0.1, 0.2, 0.3))


def test_eval_and_render_show_what_was_trained(discs: Run, capture: Path, tmp_path: Path) -> None:
    ended = fork("ns-eval", "--load-config", discs.config, "--output-path", tmp_path / "eval.json", cwd=tmp_path)
    assert ended.code == 0, ended.output
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert results["psnr"] == pytest.approx(discs.json("round_1", "report.json")["evaluation_psnr"]["after"], abs=0.05)
    ended = fork(
        "ns-render", "dataset", "--load-config", discs.config, "--output-path", tmp_path / "dataset", "--split", "test",
        "--rendered-output-names", "rgb", "depth", "normals", "surface_normals", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    held_out = len(json.loads((capture / "transforms.json").read_text())["test_filenames"])
    for name in ("rgb", "depth", "normals", "surface_normals"):
        pictures = [
            np.asarray(Image.open(path).convert("RGB")) for path in (tmp_path / "dataset").rglob(f"{name}/**/*.*g")
        ]
        assert len(pictures) == held_out, name
        assert all(picture.shape == (SIZE[1], SIZE[0], 3) and picture.std() > 3 for picture in pictures), name


def test_export_writes_thin_discs(discs: Run, tmp_path: Path) -> None:
    require_open3d()
    output = tmp_path / "splat"
    ended = fork("ns-export", "gaussian-splat", "--load-config", discs.config, "--output-dir", output, cwd=tmp_path)
    assert ended.code == 0, ended.output
    content = (output / "splat.ply").read_bytes()
    end = content.index(b"end_header") + len(b"end_header\n")
    names = [line.split()[2] for line in content[:end].decode().splitlines() if line.startswith("property float")]
    rows = np.frombuffer(content[end:], dtype="<f4").reshape(-1, len(names))
    assert len(rows) > 100
    scales = np.exp(rows[:, [names.index(f"scale_{axis}") for axis in range(3)]])
    np.testing.assert_allclose(scales[:, 2], 0.01 * scales[:, :2].min(1), rtol=1e-4)
