"""`closeup-gs doctor`: what this machine can do, what is missing, and the command that mends each."""

from __future__ import annotations

import importlib.util
import json as json_module
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Status = Literal["ok", "missing", "broken"]

OPEN3D_COMMAND = "apt-get install libusb-1.0-0 libgl1 libegl1 libx11-6 libgomp1 libudev1 libidn2-0"
"""The system libraries that open3d's wheel links to."""

_HARMLESS_PINS = {"timm", "protobuf"}
"""Pins of nerfstudio's that a working environment breaks on purpose: it never imports them, or any version does."""

_ENOUGH_DISK = 5 * 2**30
"""A run with its rounds and checkpoints takes one to a few GiB."""


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


def doctor(json: bool = False) -> None:
    """Say what this machine can do, what is missing, and the command that mends each.

    The exit code is 0 unless training cannot work at all.

    Args:
        json: Print the findings as JSON instead of a table.
    """
    checks = examine()
    if json:
        print(json_module.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print_table(checks)
    if not can_train(checks):
        raise SystemExit(1)


def examine() -> list[Check]:
    """Run every check. A check that fails unexpectedly is itself a finding, never a traceback."""
    return [_guarded(check) for check in CHECKS]


def can_train(checks: Sequence[Check]) -> bool:
    """Whether everything that training cannot do without is there."""
    return all(check.status == "ok" for check in checks if check.essential)


def check_python() -> Check:
    """3.10 to 3.12: what nerfstudio's dependencies and our annotations allow."""
    fine = (3, 10) <= sys.version_info[:2] < (3, 13)
    return Check(
        "python",
        "ok" if fine else "broken",
        f"{platform.python_version()} at {sys.executable}",
        "" if fine else "make setup PYTHON=python3.11   (3.10, 3.11 or 3.12)",
        essential=True,
    )


def check_packages() -> Check:
    """Nerfstudio and gsplat in the releases whose seams we use, and torchvision to match torch."""
    wanted = {"nerfstudio": "1.1.5", "gsplat": "1.4.0"}
    wrong = [f"{name} {_version(name) or 'absent'}" for name, version in wanted.items() if _version(name) != version]
    remedy = "pip install " + " ".join(f"{name}=={version}" for name, version in wanted.items())
    if wrong:
        return Check("nerfstudio", "broken", f"found {', '.join(wrong)}", remedy, essential=True)
    code = "import torchvision, nerfstudio.engine.trainer"
    failure = _fails_to_run(code)
    if failure:
        detail = f"cannot be imported: {failure}"
        return Check("nerfstudio", "broken", detail, "pip install --force-reinstall torch torchvision", essential=True)
    return Check("nerfstudio", "ok", "nerfstudio 1.1.5, gsplat 1.4.0", essential=True)


def check_plugin() -> Check:
    """Whether ns-train finds the method: the entry point is there only after an installation."""
    names = {entry.name for entry in metadata.entry_points(group="nerfstudio.method_configs")}
    if "closeup-gs" in names:
        return Check("ns-train closeup-gs", "ok", "the method is registered with nerfstudio", essential=True)
    detail = "nerfstudio does not know the method: closeup-ns is importable but not installed"
    return Check("ns-train closeup-gs", "missing", detail, "pip install --no-deps -e .", essential=True)


def check_torch() -> Check:
    """The torch build and the device that training will use."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        detail = f"torch {torch.__version__}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return Check("torch", "ok", detail, essential=True)
    reason = "no CUDA device" if torch.version.cuda else "a CPU-only build"
    return Check("torch", "ok", f"torch {torch.__version__}, {reason}: training runs on the CPU", essential=True)


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
    remedy = f"unset {CHOICE_VARIABLE}" if wanted else "apt-get install g++"
    if "XDG_CACHE_HOME" in reason:
        remedy = "export XDG_CACHE_HOME=/a/folder/that/can/be/written"
    return Check(name, "missing", f"{reason}; rendering on the CPU falls back to PyTorch, slower by far", remedy)


def check_compiler() -> Check:
    """Needed where the installed wheel has no binary of the CPU kernels, and by gsplat."""
    from closeup_ns.rendering import build

    try:
        command = shlex.split(build.compiler())
    except build.BuildError as error:
        return Check("C++ compiler", "missing", str(error), "apt-get install g++")
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30)
    if shown.returncode != 0:
        detail = f"`{shlex.join(command)} --version` ends with code {shown.returncode}"
        remedy = "unset CXX" if os.environ.get("CXX") else "apt-get install --reinstall g++"
        return Check("C++ compiler", "broken", detail, remedy)
    return Check("C++ compiler", "ok", shown.stdout.splitlines()[0] if shown.stdout else shlex.join(command))


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
    """The libraries of the diffusion refiner."""
    missing = [name for name in ("diffusers", "transformers", "accelerate", "safetensors") if not _version(name)]
    if missing:
        detail = f"without {', '.join(missing)} there is only the weight-free refiner"
        return Check("diffusion libraries", "missing", detail, "pip install 'closeup-ns[see3d]'")
    return Check("diffusion libraries", "ok", f"diffusers {_version('diffusers')}")


def check_see3d_weights() -> Check:
    """The diffusion refiner's weights: which of the three networks are here and whole."""
    from closeup_ns.errors import RefinerError
    from closeup_ns.refine.options import SEE3D_HUB
    from closeup_ns.refine.see3d import weights

    name, fetch = "See3D weights", "closeup-gs weights see3d"
    try:
        weights.require_packages()
        folder = weights.weights_folder(SEE3D_HUB)
    except RefinerError as reason:
        return Check(name, "missing", f"{reason}; without them nothing is generated", fetch)
    reason = weights.why_not(SEE3D_HUB, "sparse")
    if reason is not None:
        return Check(name, "broken", reason, fetch)
    whole = [unet for unet in weights.UNETS if not weights.faults(folder, [unet])]
    return Check(name, "ok", f"{', '.join(whole)} in {folder}")


def check_pyiqa() -> Check:
    """The no-reference metrics of the paper's tables."""
    from closeup_ns.metrics.no_reference import INSTALL

    if _version("pyiqa"):
        return Check("pyiqa", "ok", f"{_version('pyiqa')}, for the no-reference metrics")
    return Check("pyiqa", "missing", "no-reference metrics (non-commercial licence) are left out", INSTALL)


def check_mitsuba() -> Check:
    """Renders the demo scene."""
    if importlib.util.find_spec("mitsuba"):
        return Check("mitsuba", "ok", f"{_version('mitsuba')}, for `closeup-gs demo`")
    return Check("mitsuba", "missing", "`closeup-gs demo` renders its scene with it", "pip install 'closeup-ns[demo]'")


def check_disk() -> Check:
    """Room in the folder where ns-train writes ``outputs``."""
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{free / 2**30:.0f} GiB free in {Path.cwd()}"
    if free >= _ENOUGH_DISK:
        return Check("disk", "ok", detail)
    return Check("disk", "broken", f"{detail}: a run takes up to {_ENOUGH_DISK / 2**30:.0f}", "--output-dir ELSEWHERE")


def check_pins() -> Check:
    """Installed versions that nerfstudio's own metadata does not allow."""
    from packaging.requirements import Requirement

    clashes, on_purpose = [], []
    for line in metadata.requires("nerfstudio") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if installed is None:
            clashes.append(f"{requirement.name} is absent")
        elif not requirement.specifier.contains(installed, prereleases=True):
            found = f"{requirement.name} {installed} (pinned {requirement.specifier})"
            (on_purpose if requirement.name.lower() in _HARMLESS_PINS else clashes).append(found)
    if clashes:
        remedy = "make setup   (or, in your own environment: pip install nerfstudio==1.1.5)"
        return Check("nerfstudio's pins", "broken", "; ".join(clashes), remedy)
    newer = f"; newer on purpose: {', '.join(on_purpose)}" if on_purpose else ""
    return Check("nerfstudio's pins", "ok", f"respected{newer}")


CHECKS: list[Callable[[], Check]] = [
    check_python,
    check_torch,
    check_packages,
    check_plugin,
    check_pins,
    check_cuda_toolkit,
    check_cpu_kernels,
    check_compiler,
    check_ffmpeg,
    check_open3d,
    check_lpips,
    check_see3d,
    check_see3d_weights,
    check_pyiqa,
    check_mitsuba,
    check_disk,
]
"""In the order of the table."""

_ESSENTIAL = (check_python, check_torch, check_packages, check_plugin)


def _guarded(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        detail = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return Check(name, "broken", detail, essential=check in _ESSENTIAL)


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


def _print_table(checks: Sequence[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

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
    if can_train(checks):
        console.print("[green]Training works on this machine.[/]")
    else:
        names = ", ".join(check.name for check in checks if check.essential and check.status != "ok")
        console.print(f"[red]Training cannot work yet: mend {escape(names)} first.[/]")
