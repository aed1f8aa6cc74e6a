"""One line about the machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from pathlib import Path

import torch

from closeup_ns.rendering.build import BuildError, compiler


def cpu_model() -> str:
    """The processor's name as Linux gives it, else the machine's kind."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def compiler_version() -> str:
    """The first line of the compiler's ``--version``, or why there is none."""
    try:
        command = [*shlex.split(compiler()), "--version"]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()[0]
    except (BuildError, OSError, subprocess.SubprocessError, IndexError) as error:
        return f"no compiler ({error})"


def machine_line(threads: int) -> str:
    """CPU, cores, threads used, load of the last minute, torch and compiler."""
    load = os.getloadavg()[0]
    return (
        f"{cpu_model()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''} used, load {load:.1f}, "
        f"torch {torch.__version__}, {compiler_version()}"
    )
