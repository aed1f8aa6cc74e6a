"""Compiles the benchmarks' own small C++ sources as the kernels are compiled."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import tempfile
from pathlib import Path

from closeup_ns.rendering.build import COMMON_FLAGS, COMPILE_TIMEOUT, SOURCES, VARIANT_FLAGS, BuildError, compiler

_HERE = Path(__file__).resolve().parent


def compile_and_load(source: str, variant: str) -> ctypes.CDLL:
    """The library of ``benchmarks/<source>`` for one instruction set, with the kernels' flags and headers.

    It is compiled into a temporary folder that is gone when this returns: a loaded library needs its file no more.
    BuildError where that fails.
    """
    with tempfile.TemporaryDirectory(prefix="closeup-bench-") as folder:
        target = Path(folder) / "library.so"
        flags = [flag for flag in COMMON_FLAGS if flag != "-fopenmp"]  # one thread; no second OpenMP beside torch's
        command = [*shlex.split(compiler()), *flags, *VARIANT_FLAGS[variant], f"-I{SOURCES}", "-shared"]
        command += [str(_HERE / source), "-o", str(target)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False)
        if result.returncode != 0:
            lines = [line for line in result.stderr.splitlines() if "error" in line] or ["no message"]
            raise BuildError(f"{command[0]} failed on benchmarks/{source} ({variant}): {lines[0]}")
        return ctypes.CDLL(str(target))
