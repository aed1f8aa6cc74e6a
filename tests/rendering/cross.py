"""Compiling for 64-bit ARM and running that here, where Debian's cross compiler and qemu's user mode are installed."""

from __future__ import annotations

import shutil

import pytest

from closeup_ns.rendering import build

ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_RUNNER = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
_MISSING = [tool for tool in (ARM_COMPILER, ARM_RUNNER[0]) if shutil.which(tool) is None]

needs_arm = pytest.mark.skipif(
    build.machine_family() == "arm" or bool(_MISSING),
    reason="this machine is the real thing"
    if build.machine_family() == "arm"
    else f"no {' and no '.join(_MISSING)}: apt-get install g++-aarch64-linux-gnu qemu-user",
)
