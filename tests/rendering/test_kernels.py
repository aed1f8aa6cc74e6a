"""Which kernels are loaded, what happens where there are none, and what they share with torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from closeup_ns.cli import doctor
from closeup_ns.errors import CloseupError
from closeup_ns.rendering import backend, build, kernels
from closeup_ns.rendering.kernels import KernelChoiceError, load_kernels
from closeup_ns.rendering.rasterize import rasterization


def forget() -> None:
    for cached in (kernels._load, kernels._load_best, backend.kernels_available, backend._say_once):
        cached.cache_clear()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process: nothing loaded, nothing said."""
    forget()
    monkeypatch.delenv("CLOSEUP_KERNELS", raising=False)
    yield
    forget()


@pytest.fixture
def nothing_compiled(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without libraries; the user's cache folder, empty."""
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "_lib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def has_kernels() -> bool:
    try:
        load_kernels("generic")
    except CloseupError:
        return False
    return True


needs_kernels = pytest.mark.skipif(not has_kernels(), reason="no kernels can be had here")


def render_one_gaussian() -> Tensor:
    eye, one = torch.eye(4)[None], torch.ones(1)
    where, turn, size = torch.tensor([[0.0, 0, 2]]), torch.ones(1, 4), torch.ones(1, 3)
    return rasterization(where, turn, size, one, torch.ones(1, 3), eye, eye[:, :3, :3], 8, 8)[0]


@pytest.mark.parametrize("trouble", ["no compiler", "wrong CXX", "failing CXX", "cache"])
def test_without_kernels_pytorch_renders_and_says_why_once(
    trouble: str, nothing_compiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    if trouble == "no compiler":
        monkeypatch.setenv("PATH", str(nothing_compiled))
    elif trouble == "cache":
        nothing_compiled.write_text("a file where the folder should be")
        monkeypatch.setattr(build, "compiler", lambda: "g++")
    else:
        monkeypatch.setenv("CXX", {"wrong CXX": "no-such-compiler", "failing CXX": "false"}[trouble])
    for _ in range(2):
        assert render_one_gaussian().max() > 0.5
    *attempt, line = capsys.readouterr().err.splitlines()
    assert len(attempt) == (trouble == "failing CXX"), "one line, after the one that says that it is compiling"
    assert "plain PyTorch" in line and "kernels are not available" in line
    reason = {
        "no compiler": "no C++ compiler (g++ is not on PATH)",
        "wrong CXX": "no C++ compiler (no-such-compiler is not on PATH)",
        "failing CXX": "false failed on the",
        "cache": "set XDG_CACHE_HOME to another folder",
    }[trouble]
    assert reason in line and reason in backend.describe_backend("cpu")
    finding = doctor.check_cpu_kernels()
    assert finding.status == "missing" and reason in finding.detail
    remedies = {"no compiler": "apt-get install g++", "cache": "export XDG_CACHE_HOME=/a/folder/that/can/be/written"}
    assert finding.remedy == remedies.get(trouble, "unset CXX")


@needs_kernels
@pytest.mark.usefixtures("fresh")
def test_what_is_there_serves_where_the_best_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    existing = build.find_library("generic")
    monkeypatch.setattr(kernels, "runnable_variants", lambda: ["avx512", "generic"])
    monkeypatch.setattr(kernels, "find_library", lambda variant: existing if variant == "generic" else None)

    def find_or_compile(variant: str) -> Path:
        if variant != "generic" or existing is None:
            raise build.BuildError("no C++ compiler")
        return existing

    monkeypatch.setattr(kernels, "find_or_compile", find_or_compile)
    assert load_kernels().lanes == "generic"


@needs_kernels
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("variant", build.runnable_variants())
def test_the_instruction_set_can_be_chosen(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEUP_KERNELS", variant.upper())
    assert load_kernels().lanes == variant
    assert variant in backend.describe_backend("cpu")
    finding = doctor.check_cpu_kernels()
    assert finding.status == "ok" and finding.detail.startswith(f"{variant} kernels, chosen by CLOSEUP_KERNELS")


@pytest.mark.usefixtures("fresh")
def test_pytorch_can_be_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CLOSEUP_KERNELS", "torch")
    assert render_one_gaussian().max() > 0.5
    assert "CLOSEUP_KERNELS=torch" in capsys.readouterr().err
    assert doctor.check_cpu_kernels().remedy == "unset CLOSEUP_KERNELS"


@pytest.mark.usefixtures("fresh")
def test_a_choice_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEUP_KERNELS", "avx3")
    with pytest.raises(KernelChoiceError, match="avx3 is none of auto, avx512, avx2, sse2, neon, generic, torch"):
        render_one_gaussian()
    assert doctor.check_cpu_kernels().status == "broken"
    monkeypatch.setattr(kernels, "runnable_variants", lambda: ["sse2", "generic"])
    monkeypatch.setenv("CLOSEUP_KERNELS", "avx512")
    with pytest.raises(
        KernelChoiceError, match="avx512, which this CPU cannot run; it can run auto, sse2, generic, torch"
    ):
        render_one_gaussian()


OPENMP_PROGRAM = r"""
import re
import closeup_ns
import torch
from closeup_ns.rendering.ssim import ssim
torch.set_num_threads(2)
image = torch.rand(200, 200, 3)
ssim(image, image.flip(0))            # our threads
torch.rand(2000000).exp().sum()       # torch's
(image[..., 0] @ image[..., 1]).sum()
maps = open("/proc/self/maps").read()
print(*sorted(set(re.findall(r"\S*/(?:libgomp|libiomp|libomp)[^/]*$", maps, re.MULTILINE))), sep="\n")
print("closeup_" in maps)
"""


@needs_kernels
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_one_openmp_runtime_whose_threads_wait_passively() -> None:
    """Even where the environment does not ask for it: closeup_ns was imported before torch."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_DISPLAY_ENV"] = "verbose"
    finished = subprocess.run(
        [sys.executable, "-c", OPENMP_PROGRAM], capture_output=True, text=True, timeout=600, env=environment
    )
    assert finished.returncode == 0, finished.stderr
    *runtimes, kernels_are_mapped = finished.stdout.splitlines()
    assert kernels_are_mapped == "True" and len(runtimes) == 1, finished.stdout
    assert finished.stderr.count("OPENMP DISPLAY ENVIRONMENT BEGIN") == 1, "one runtime, so one report"
    # The policy reads PASSIVE even where nobody asked for it; what differs is how often a waiting thread looks.
    assert "GOMP_SPINCOUNT = '0'" in finished.stderr
