"""`closeup-gs doctor`: what this machine can do, what is missing, and the command that mends each."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "missing", "broken"]

OPEN3D_COMMAND = "apt-get install libusb-1.0-0 libgl1 libegl1 libx11-6 libgomp1 libudev1 libidn2-0"
"""The system libraries that open3d's wheel links to."""


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    """What was checked."""
    status: Status
    """``missing`` is a thing that is not there, ``broken`` one that is there and does not work."""
    detail: str
    """What was found, and what it means for the user."""
    remedy: str = ""
    """The command that mends it; empty where all is well."""
    essential: bool = False
    """Training cannot work at all without it."""


def doctor() -> None:
    """Say what this machine can do, what is missing, and the command that mends each.

    The exit code is 0 unless training cannot work at all.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    checks = [_guarded(check) for check in CHECKS]
    colours = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table("what", "", "found", title="closeup-gs doctor")
    table.columns[2].overflow = "fold"
    for check in checks:
        table.add_row(check.name, f"[{colours[check.status]}]{check.status}[/]", escape(check.detail))
    console = Console()
    console.print(table)
    # Below the table and unwrapped, so that a command can be copied.
    for check in checks:
        if check.remedy:
            console.print(f"[bold]{escape(check.name)}:[/] {escape(check.remedy)}", soft_wrap=True)
    ill = [check.name for check in checks if check.essential and check.status != "ok"]
    if ill:
        console.print(f"[red]Training cannot work yet: mend {escape(', '.join(ill))} first.[/]")
        raise SystemExit(1)
    console.print("[green]Training works on this machine.[/]")


def check_torch() -> Check:
    """The torch build and the device that training will use."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        detail = f"torch {torch.__version__}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return Check("torch", "ok", detail, essential=True)
    reason = "no CUDA device" if torch.version.cuda else "a CPU-only build"
    return Check("torch", "ok", f"torch {torch.__version__}, {reason}: training runs on the CPU", essential=True)


def check_nerfstudio() -> Check:
    """Nerfstudio and gsplat in the releases whose seams we use, and torchvision to match torch."""
    wanted = {"nerfstudio": "1.1.5", "gsplat": "1.4.0"}
    wrong = [f"{name} {_version(name) or 'absent'}" for name, version in wanted.items() if _version(name) != version]
    remedy = "pip install " + " ".join(f"{name}=={version}" for name, version in wanted.items())
    if wrong:
        return Check("nerfstudio", "broken", f"found {', '.join(wrong)}", remedy, essential=True)
    failure = _fails_to_run("import torchvision, nerfstudio.engine.trainer")
    if failure:
        detail, remedy = f"cannot be imported: {failure}", "pip install --force-reinstall torch torchvision"
        return Check("nerfstudio", "broken", detail, remedy, essential=True)
    return Check("nerfstudio", "ok", "nerfstudio 1.1.5, gsplat 1.4.0", essential=True)


def check_cuda_toolkit() -> Check:
    """Gsplat 1.4.0 compiles its kernels at first use, with an nvcc of torch's own CUDA major version."""
    import torch

    name = "gsplat's CUDA kernels"
    if not torch.cuda.is_available():
        return Check(name, "ok", "not needed: there is no CUDA device")
    built = torch.version.cuda or "?"
    remedy = f"install the CUDA toolkit {built.split('.')[0]}.x and put its nvcc on PATH (or set CUDA_HOME)"
    home = os.environ.get("CUDA_HOME")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if nvcc is None:
        return Check(name, "missing", f"no nvcc; gsplat compiles at first use (torch has CUDA {built})", remedy)
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=30).stdout
    release = re.search(r"release (\d+)\.(\d+)", output)
    if release is None or release.group(1) != built.split(".")[0]:
        found = release.group(0) if release else "an nvcc that does not say its version"
        return Check(name, "broken", f"nvcc is {found}, torch was built with CUDA {built}", remedy)
    return Check(name, "ok", f"nvcc {release.group(0)}; compiled at first use, which takes some minutes")


def check_cpu_kernels() -> Check:
    """Our own rasteriser, which the CPU path and every test use: the instruction set in use, and what else is there."""
    from closeup_ns.rendering import build
    from closeup_ns.rendering.backend import kernels_available
    from closeup_ns.rendering.kernels import CHOICE_VARIABLE, KernelChoiceError

    name, wanted = "CPU kernels", os.environ.get(CHOICE_VARIABLE)
    try:
        fine, reason = kernels_available()
    except KernelChoiceError as error:
        return Check(name, "broken", str(error), f"unset {CHOICE_VARIABLE}")
    if fine:
        packaged = ", ".join(build.packaged_variants())
        came = f"packaged: {packaged}" if packaged else "none packaged: compiled at first use"
        chosen = f", chosen by {CHOICE_VARIABLE}" if wanted else ""
        return Check(name, "ok", f"{reason}{chosen} ({came}; this CPU runs {', '.join(build.runnable_variants())})")
    remedy = f"unset {CHOICE_VARIABLE}" if wanted else "unset CXX" if os.environ.get("CXX") else "apt-get install g++"
    if "XDG_CACHE_HOME" in reason:
        remedy = "export XDG_CACHE_HOME=/a/folder/that/can/be/written"
    return Check(name, "missing", f"{reason}; rendering on the CPU falls back to PyTorch, slower by far", remedy)


def check_ffmpeg() -> Check:
    """ns-render leaves with an error without it, even when it writes images only."""
    from closeup_ns.ffmpeg import ensure_ffmpeg_on_path

    found = ensure_ffmpeg_on_path()
    if found is None:
        return Check("ffmpeg", "missing", "ns-render needs it", "pip install imageio-ffmpeg")
    return Check("ffmpeg", "ok", str(found))


def check_open3d() -> Check:
    """ns-export and captures with a ``ply_file_path`` import it. In a process of its own, since it may crash."""
    failure = _fails_to_run("import open3d")
    if failure is None:
        return Check("open3d", "ok", f"{_version('open3d')}, for ns-export")
    return Check("open3d", "broken", f"ns-export and point clouds in .ply need it: {failure}", OPEN3D_COMMAND)


def check_lpips() -> Check:
    """torchvision's AlexNet, which the LPIPS of nerfstudio downloads. Without it LPIPS is left out."""
    import torch

    weights = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if weights.is_file():
        return Check("LPIPS weights", "ok", str(weights))
    remedy = "python -c 'import torchvision; torchvision.models.alexnet(weights=\"DEFAULT\")'   (233 MB, once)"
    return Check("LPIPS weights", "missing", f"no {weights}; evaluation leaves LPIPS out", remedy)


def check_see3d() -> Check:
    """The diffusion refiner: its packages, and which of its three networks' weights are here and whole."""
    from closeup_ns.refine.options import SEE3D_HUB
    from closeup_ns.refine.see3d import weights

    absent = [name for name in weights.PACKAGES if not _version(name)]
    if absent:
        detail = f"without {', '.join(absent)} there is only the weight-free refiner"
        return Check("See3D", "missing", detail, weights.INSTALL)
    reason = weights.why_not(SEE3D_HUB, "sparse")
    if reason is not None:
        return Check("See3D", "missing", f"{reason}; without them nothing is generated", "closeup-gs weights see3d")
    folder = weights.weights_folder(SEE3D_HUB)
    whole = [unet for unet in weights.UNETS if not weights.faults(folder, [unet])]
    return Check("See3D", "ok", f"{', '.join(whole)} in {folder}")


def check_pyiqa() -> Check:
    """The no-reference metrics of the paper's tables."""
    from closeup_ns.metrics.no_reference import INSTALL

    if _version("pyiqa"):
        return Check("pyiqa", "ok", f"{_version('pyiqa')}, for the no-reference metrics")
    return Check("pyiqa", "missing", "no-reference metrics (non-commercial licence) are left out", INSTALL)


def check_mitsuba() -> Check:
    """Renders the demo scene."""
    if _version("mitsuba"):
        return Check("mitsuba", "ok", f"{_version('mitsuba')}, for `closeup-gs demo`")
    return Check("mitsuba", "missing", "`closeup-gs demo` renders its scene with it", "pip install 'closeup-ns[demo]'")


CHECKS: list[Callable[[], Check]] = [
    check_torch,
    check_nerfstudio,
    check_cuda_toolkit,
    check_cpu_kernels,
    check_ffmpeg,
    check_open3d,
    check_lpips,
    check_see3d,
    check_pyiqa,
    check_mitsuba,
]
"""In the order of the table."""


def _guarded(check: Callable[[], Check]) -> Check:
    """A check that fails unexpectedly is itself a finding, never a traceback."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Check(name, "broken", detail, essential=check in (check_torch, check_nerfstudio))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fails_to_run(code: str) -> str | None:
    """None if ``code`` runs in a fresh interpreter, else its last line of complaint, or how it died."""
    try:
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "it did not finish within two minutes"
    if finished.returncode == 0:
        return None
    lines = finished.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with code {finished.returncode}"
