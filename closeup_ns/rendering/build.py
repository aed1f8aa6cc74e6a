"""Compiles the C++ kernels: at package build (setup.py) or, where that did not happen, at first use into a user cache.

Standard library only: setup.py loads this file by path, before anything else of the package can be imported.

A library is named after its instruction set and a hash of its sources and flags, so a stale one is never loaded, and it
is renamed into place when it is complete, so two processes that compile at once do no harm.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "csrc"
PACKAGED = Path(__file__).resolve().parent / "_lib"
"""Where setup.py puts the libraries."""

# -ffast-math is never used: it would break NaN culling and the bitwise reproducibility across threads.
COMMON_FLAGS = (
    "-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"
)  # fmt: skip
VARIANT_FLAGS: dict[str, tuple[str, ...]] = {
    "avx512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"),
    "avx2": ("-mavx2", "-mfma"),
    "generic": (),
}
"""Instruction sets, best first."""
_REQUIRED_CPU_FLAGS: dict[str, frozenset[str]] = {
    "avx512": frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}),
    "avx2": frozenset({"avx2", "fma"}),
    "generic": frozenset(),
}
EXTRA_FLAGS_VARIABLE = "CLOSEUP_EXTRA_CXXFLAGS"
"""Environment variable with more compiler flags, as a shell writes them: sanitizers, debug information."""
COMPILE_TIMEOUT = 600
"""Seconds after which a compiler is given up."""


class BuildError(RuntimeError):
    """The kernels cannot be compiled here; the message is one line that says why."""


def cpu_flags() -> frozenset[str]:
    """What this CPU can do, in Linux's names; empty where that cannot be told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


def runnable_variants() -> list[str]:
    """The instruction sets that this machine can run, best first."""
    flags = cpu_flags()
    return [name for name, needed in _REQUIRED_CPU_FLAGS.items() if needed <= flags]


def buildable_variants() -> list[str]:
    """The instruction sets that a compiler for this kind of machine knows."""
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return list(VARIANT_FLAGS) if is_x86 else ["generic"]


def compiler() -> str:
    """The C++ compiler: $CXX, else g++, else clang++. BuildError where there is none."""
    named = os.environ.get("CXX")
    for command in [named] if named else ["g++", "clang++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return command
    raise BuildError(f"no C++ compiler ({named or 'g++'} is not on PATH)")


def extra_flags() -> tuple[str, ...]:
    """The flags that the environment adds, last on the command line. They are part of a library's name."""
    return tuple(shlex.split(os.environ.get(EXTRA_FLAGS_VARIABLE, "")))


def library_name(variant: str) -> str:
    """File name of a variant: its instruction set and a hash of everything that decides its content."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".h", ".cpp"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((COMMON_FLAGS, VARIANT_FLAGS[variant], extra_flags(), platform.machine())).encode())
    return f"closeup_{variant}_{digest.hexdigest()[:16]}.so"


def cache_folder() -> Path:
    """Per-user folder for libraries compiled at first use."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "closeup-ns" / "kernels"


def compile_variant(variant: str, folder: Path) -> Path:
    """Compile a variant into ``folder``; the file appears whole or not at all. BuildError where that fails."""
    target = folder / library_name(variant)
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as workplace:
            unfinished = Path(workplace) / target.name
            command = [
                *shlex.split(compiler()),
                *COMMON_FLAGS,
                *VARIANT_FLAGS[variant],
                *extra_flags(),
                *sources,
                "-o",
                str(unfinished),
            ]
            result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False)
            if result.returncode != 0:
                lines = [line for line in result.stderr.splitlines() if "error" in line] or ["no message"]
                raise BuildError(f"{command[0]} failed on the {variant} kernels: {lines[0]}")
            os.replace(unfinished, target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"cannot compile the {variant} kernels into {folder}: {error}") from error
    return target


def find_or_compile(variant: str) -> Path:
    """The library of a variant: the packaged one, the cached one, or a fresh one. BuildError where none can be had."""
    name = library_name(variant)
    for folder in (PACKAGED, cache_folder()):
        if (folder / name).is_file():
            return folder / name
    print(
        f"closeup-ns: compiling the CPU kernels ({variant}), once; this takes under a minute",
        file=sys.stderr,
        flush=True,
    )
    return compile_variant(variant, cache_folder())
