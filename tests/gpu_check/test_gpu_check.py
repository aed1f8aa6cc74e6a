"""tools/gpu_check.py as far as it goes without a GPU: its exit codes, its table, and what it calls a difference."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from closeup_ns.rendering.request import RasterRequest
from tests.rendering.scenes import run_oracle
from tools import _cuda, _parity, gpu_check
from tools._parity import METHODS, STRICT_OPACITY, Side, judge, parity_scene, with_limited_opacity
from tools._process import run_logged
from tools._report import CheckFailed, Report, Skipped, one_line

OURS, REFERENCE = Side("ours", "cpu", "cpu"), Side("reference", "cpu", "torch")


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the check sets for its children is undone."""
    for name in ("PATH", "CUDA_HOME", "MAX_JOBS", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if not os.environ[name]:
            monkeypatch.delenv(name)


def parity_request(count: int = 300, side: int = 48) -> RasterRequest:
    return parity_scene(count, side)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so the real check would begin")
def test_without_cuda_it_exits_with_2_and_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--output", str(tmp_path)]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "torch.cuda.is_available() is False" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_cuda, "find_cuda_home", lambda: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("shutil.which", lambda *_arguments, **_keywords: None)
    lacking = "; ".join(_cuda.missing())
    for what in ("is_available() is False", "no CUDA toolkit", "no ninja", "no-such-compiler is not on PATH"):
        assert what in lacking
    monkeypatch.setattr(_cuda.importlib.util, "find_spec", lambda name: None)
    assert "gsplat cannot be imported" in "; ".join(_cuda.missing())


def test_a_dry_run_goes_all_the_way_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--dry-run",
        "--output",
        str(tmp_path),
        "--parity-size",
        "200x32",
        "--stages",
        "build",
        "parity",
        "time",
    ]
    code = gpu_check.main(arguments)
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    wrong = {row["name"]: row["reason"] for row in report["rows"] if row["status"] in ("failed", "skipped")}
    assert wrong == {} and code == 0
    assert len(report["rows"]) == 1 + 3 + 3 + 3
    strict = next(row for row in report["rows"] if row["name"] == "3dgs antialiased, within three sigma")["figures"]
    gradients = {"means", "quats", "scales", "opacities", "colors", "viewmats", "means2d", "absgrad"}
    assert {f"grad_{name}" for name in gradients} <= strict.keys()
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in report["rows"]) and "0 failed" in printed


@pytest.mark.parametrize("method", METHODS)
def test_within_three_sigma_every_pixel_of_the_support_lies(method: str) -> None:
    """The premise of the strict test, by brute force over the pixels that a Gaussian really reaches."""
    request = with_limited_opacity(parity_request(), method)
    assert STRICT_OPACITY[method] * torch.exp(torch.tensor(-4.5)) < 1 / 255
    if method == "2dgs":
        return
    info = run_oracle(replace(request, absgrad=False)).info
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    means, conics, opacities = (info[name][0].detach() for name in ("means2d", "conics", "opacities"))
    dx, dy = means[:, 0, None, None] - x, means[:, 1, None, None] - y
    a, b, c = conics.T[..., None, None]
    alpha = opacities[:, None, None] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
    reached = (alpha >= 1 / 255) & (info["radii"][0] > 0)[:, None, None]
    assert reached.sum() > 1000
    radii = info["radii"][0][:, None, None]
    assert ((dx.abs() <= radii) & (dy.abs() <= radii))[reached].all()


def test_a_wrong_gradient_or_image_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    request = parity_request()
    figures = _parity.compare(OURS, REFERENCE, request, "3dgs classic")
    assert judge(figures) == ""
    for name, value in {"grad_means": 1e-2, "color_psnr": 60.0, "depth_rms": 0.1, "grad_quats": float("nan"),
                        "one_side_only": "absgrad"}.items():  # fmt: skip
        assert name in judge({**figures, name: value})
    assert "not two renderers" in judge(_parity.compare(OURS, OURS, request, "3dgs classic"))
    original = _parity.render

    def with_wrong_depth(request: RasterRequest, method: str, backend: str):
        images, info = original(request, method, backend)
        return ({**images, "depth": 1.01 * images["depth"]} if backend == "torch" else images), info

    monkeypatch.setattr(_parity, "render", with_wrong_depth)
    with pytest.raises(CheckFailed, match="depth_rms") as caught:
        _parity.strict_parity(OURS, REFERENCE, request, "3dgs classic")
    assert caught.value.figures["depth_rms"] == pytest.approx(0.01, rel=0.1)


def test_a_stage_that_fails_leaves_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    def broken() -> dict[str, float]:
        raise ImportError("gsplat_cuda.so: cannot open")

    def hopeless() -> dict[str, float]:
        raise Skipped("no kernels")

    report = Report(tmp_path / "r.json", minutes=1)
    report.run("a", "broken", broken)
    report.run("a", "not demanded", lambda: {"psnr": float("inf")}, demanded=False)
    assert report.exit_code() == 1
    report.run("a", "skipped", hopeless)
    statuses = [row["status"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]]
    assert statuses == ["failed", "reported", "skipped"]
    assert "gsplat_cuda.so: cannot open" in report.rows[0].reason
    assert "Traceback" in (tmp_path / "r.log").read_text()


def test_when_the_budget_is_spent_nothing_begins(tmp_path: Path) -> None:
    report = Report(tmp_path / "r.json", minutes=0)
    row = report.run("a", "late", lambda: pytest.fail("begun"))
    assert row.status == "skipped" and "budget" in row.reason and report.exit_code() == 1


def test_an_error_is_told_with_what_it_hides() -> None:
    error = ImportError("no gsplat_cuda.so")
    error.__context__ = OSError("CUDA_HOME is not set\nand more")
    assert one_line(error) == "ImportError: no gsplat_cuda.so (from OSError: CUDA_HOME is not set)"
    assert one_line(RuntimeError("Building\nfoo.cu(3): error: no\nmore")) == "RuntimeError: foo.cu(3): error: no"


def test_a_command_is_ended_with_its_children_when_time_is_up(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    looks: list[int] = []
    with pytest.raises(CheckFailed, match="no more time"):
        run_logged([sys.executable, "-c", child], tmp_path / "log", 1.0, watch=lambda: looks.append(1))
    assert looks
    code = "print('ValueError: an error'); print('later'); raise SystemExit(3)"
    with pytest.raises(CheckFailed, match="exit code 3: ValueError: an error"):
        run_logged([sys.executable, "-c", code], tmp_path / "log", 60.0)
