"""Each implementation of csrc/lanes/lanes.h against plain loops: lanes_check.cpp, compiled for it and run."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from closeup_ns.rendering import build
from tests.rendering.cross import ARM_COMPILER, ARM_RUNNER, needs_arm, needs_compiler

CHECK = Path(__file__).with_name("lanes_check.cpp")


def compile_and_run(variant: str, compiler: list[str], runner: list[str], folder: Path) -> str:
    program = folder / "lanes_check"
    flags = [flag for flag in build.COMMON_FLAGS if flag != "-fPIC"] + list(build.VARIANT_FLAGS[variant])
    command = [*compiler, *flags, "-I", str(build.SOURCES), str(CHECK), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert compiled.returncode == 0, compiled.stderr
    run = subprocess.run([*runner, str(program)], capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@needs_compiler
@pytest.mark.parametrize("variant", build.runnable_variants())
def test_lanes_of_this_machine(variant: str, tmp_path: Path) -> None:
    assert compile_and_run(variant, shlex.split(build.compiler()), [], tmp_path) == f"{variant}: 0 mismatches\n"


@needs_arm
@pytest.mark.parametrize("variant", ["neon", "generic"])
def test_lanes_of_arm(variant: str, tmp_path: Path) -> None:
    assert compile_and_run(variant, [ARM_COMPILER], ARM_RUNNER, tmp_path) == f"{variant}: 0 mismatches\n"
