"""One line about the machine that figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

import torch

from closeup_ns.rendering.build import BuildError, compiler


def machine_line(threads: int) -> str:
    """CPU, cores, threads used, load of the last minute, torch and compiler."""
    named = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    try:
        command = [*shlex.split(compiler()), "--version"]
        version = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.partition("\n")[0]
    except BuildError as error:
        version = str(error)
    return (
        f"{named[1] if named else platform.machine()}, {os.cpu_count()} cores, {threads} threads used, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {version}"
    )
