"""Which compilers are here: this machine's, and for 64-bit ARM Debian's cross compiler with qemu's user mode."""

from __future__ import annotations

import shutil

import pytest

from closeup_ns.rendering import build

ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_RUNNER = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
_MISSING = [tool for tool in (ARM_COMPILER, ARM_RUNNER[0]) if shutil.which(tool) is None]

try:
    build.compiler()
    _NO_COMPILER = ""
except build.BuildError as error:
    _NO_COMPILER = str(error)

needs_compiler = pytest.mark.skipif(bool(_NO_COMPILER), reason=_NO_COMPILER)
needs_arm = pytest.mark.skipif(
    build.machine_family() == "arm" or bool(_MISSING),
    reason="this machine is the real thing"
    if build.machine_family() == "arm"
    else f"no {' and no '.join(_MISSING)}: apt-get install g++-aarch64-linux-gnu qemu-user",
)
