"""The CUDA side of a check: what it needs, building gsplat, and clocks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from closeup_ns.rendering.build import BuildError, compiler
from tools._process import run_logged
from tools._report import CheckFailed, Figures

_BUILD = "from gsplat.cuda._backend import _C; import sys; sys.exit(_C is None)"
"""Builds gsplat 1.4.0's kernels where they are not built yet; exits 1 where it found no compiler for them."""
_MOST_JOBS = 10
"""Compilers at a time, each of which takes up to 3 GiB."""


def find_cuda_home() -> Path | None:
    """The CUDA toolkit: $CUDA_HOME, $CUDA_PATH, where nvcc on PATH really lies, /usr/local/cuda.

    A folder counts that holds both the compiler and its headers: nvcc on PATH can be a mere script that calls another.
    """
    found = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places += [str(Path(found).resolve().parents[1])] if found else []
    for place in [*filter(None, places), "/usr/local/cuda"]:
        home = Path(place)
        if (home / "bin" / "nvcc").is_file() and (home / "include" / "cuda_runtime.h").is_file():
            return home
    return None


def missing() -> list[str]:
    """What a check on CUDA cannot do without and this machine has not; empty where it can begin."""
    lacking = []
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU-only build"
        lacking.append(f"torch.cuda.is_available() is False (torch {torch.__version__}, {built})")
    if importlib.util.find_spec("gsplat") is None:
        lacking.append("gsplat cannot be imported (pip install gsplat==1.4.0)")
    elif importlib.util.find_spec("gsplat.csrc") is None:  # a wheel with compiled kernels needs no compiler
        if find_cuda_home() is None:
            lacking.append("no CUDA toolkit: nvcc with its headers (set CUDA_HOME); gsplat compiles at first use")
        if shutil.which("ninja", path=_search_path()) is None:
            lacking.append("no ninja (pip install ninja)")
        try:
            compiler()
        except BuildError as error:
            lacking.append(str(error))
    return lacking


def prepare_environment() -> None:
    """Let this process and its children find nvcc and ninja, and compile for this machine's GPU alone.

    To be called before torch.utils.cpp_extension is imported, which looks for CUDA_HOME once.
    """
    home = find_cuda_home()
    if home is not None:
        os.environ["CUDA_HOME"] = str(home)
    os.environ["PATH"] = _search_path(home)
    os.environ.setdefault("MAX_JOBS", str(min(os.cpu_count() or 1, _MOST_JOBS)))
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", f"{major}.{minor}")


def _search_path(home: Path | None = None) -> str:
    """PATH with this Python's own programs first: pip puts ninja beside it, which need not be on PATH."""
    first = [str(Path(sys.executable).parent)] + ([str(home / "bin")] if home else [])
    return os.pathsep.join([*first, os.environ.get("PATH", "")])


def build_gsplat(log: Path, seconds: float) -> Figures:
    """Compile gsplat's kernels, or find them compiled; in a process of its own, which can be ended.

    CheckFailed names the log where that fails or takes longer than ``seconds``.
    """
    run_logged([sys.executable, "-c", _BUILD], log, seconds)
    return {"log": log.name}


def about_device(device: str) -> dict[str, str]:
    """What the table's head says of the machine."""
    told = {"torch": torch.__version__, "cuda": str(torch.version.cuda), "device": device}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        told["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        told["nvcc"] = _nvcc_release()
    return told


def _nvcc_release() -> str:
    home = find_cuda_home()
    if home is None:
        return "none"
    output = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, timeout=30).stdout
    return next((line.strip() for line in output.splitlines() if "release" in line), "unknown")


def milliseconds(call: Callable[[], object], device: str, repeats: int, warm_up: int) -> float:
    """Median time of ``call``: between CUDA events on the GPU, wall clock on the CPU."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def check_launches() -> Figures:
    """Whether a kernel really runs: a driver that is too old for torch says so here and not in gsplat."""
    total = float(torch.arange(1000, device="cuda", dtype=torch.float32).sum())
    if total != 499500.0:
        raise CheckFailed(f"0 + 1 + .. + 999 is {total} on this GPU")
    return {"free_gb": torch.cuda.mem_get_info()[0] / 2**30}
