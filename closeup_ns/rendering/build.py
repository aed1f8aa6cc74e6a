"""Compiles the C++ kernels: at package build (setup.py) or, where that did not happen, at first use into a user cache.

Standard library only: setup.py loads this file by path, before anything else of the package can be imported.

A library is named after its instruction set and a hash of its sources and flags, so a stale one is never loaded. It is
renamed into place when it is complete, so two processes that compile at once do no harm. It ends with a checksum, so
one that a crash or a full disk cut short is compiled anew: loading it could kill the process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "csrc"
PACKAGED = Path(__file__).resolve().parent / "_lib"
"""Where setup.py puts the libraries."""

# -ffast-math is never used: it would break NaN culling and the bitwise reproducibility across threads.
COMMON_FLAGS = (
    "-O3",
    "-std=c++17",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
)
VARIANT_FLAGS: dict[str, tuple[str, ...]] = {
    "avx512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"),
    "avx2": ("-mavx2", "-mfma"),
    "sse2": (),
    "neon": (),
    "generic": ("-DCLOSEUP_GENERIC_LANES",),
}
"""Instruction sets, best first. Every 64-bit x86 has sse2 and every 64-bit ARM has neon; generic is for all others."""
_REQUIRED_CPU_FLAGS: dict[str, frozenset[str]] = {
    "avx512": frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"}),
    "avx2": frozenset({"avx2", "fma"}),
}
_FAMILY_VARIANTS = {"x86": ("avx512", "avx2", "sse2"), "arm": ("neon",), "other": ()}
COMPILE_TIMEOUT = 600
"""Seconds after which a compiler is given up."""


class BuildError(RuntimeError):
    """The kernels cannot be compiled here; the message is one line that says why."""


def machine_family() -> str:
    """What kind of processor this is: x86 or arm, both of 64 bits, or other."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86"
    return "arm" if machine in ("aarch64", "arm64") else "other"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """What this CPU can do, in Linux's names; empty where that cannot be told."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    if sys.platform == "darwin":  # the same names, but in capitals
        command = ["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return frozenset()
        return frozenset(found.lower().split())
    return frozenset()


def runnable_variants() -> list[str]:
    """The instruction sets that this machine can run, best first."""
    flags = cpu_flags()
    family = _FAMILY_VARIANTS[machine_family()]
    return [name for name in family if _REQUIRED_CPU_FLAGS.get(name, frozenset()) <= flags] + ["generic"]


def buildable_variants() -> list[str]:
    """The instruction sets that a wheel for this kind of machine carries."""
    return list(_FAMILY_VARIANTS[machine_family()]) or ["generic"]


def compiler() -> str:
    """The C++ compiler: $CXX, else g++, else clang++. BuildError where there is none."""
    named = os.environ.get("CXX")
    for command in [named] if named else ["g++", "clang++"]:
        parts = shlex.split(command)
        if parts and shutil.which(parts[0]):
            return command
    raise BuildError(f"no C++ compiler ({named or 'g++'} is not on PATH)")


def library_name(variant: str) -> str:
    """File name of a variant: its instruction set and a hash of everything that decides its content."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.rglob("*.h"), *SOURCES.rglob("*.cpp")]):
        name = path.relative_to(SOURCES).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr((COMMON_FLAGS, VARIANT_FLAGS[variant], platform.machine())).encode())
    return f"closeup_{variant}_{digest.hexdigest()[:16]}.so"


def cache_folder() -> Path:
    """Per-user folder for libraries compiled at first use."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "closeup-ns" / "kernels"


def compile_variant(variant: str, folder: Path) -> Path:
    """Compile a variant into ``folder``; the file appears whole or not at all. BuildError where that fails."""
    target = folder / library_name(variant)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as workplace:
            unfinished = Path(workplace) / target.name
            _compile_and_link(variant, unfinished)
            with unfinished.open("ab") as file:
                file.write(hashlib.sha256(unfinished.read_bytes()).digest())
            os.replace(unfinished, target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"cannot compile the {variant} kernels into {folder}: {error}") from error
    return target


def _compile_and_link(variant: str, library: Path) -> None:
    """Compile the sources side by side, then link; object files lie next to ``library``."""
    command = shlex.split(compiler())
    flags = [*COMMON_FLAGS, *VARIANT_FLAGS[variant], f"-I{SOURCES}"]
    sources = sorted(SOURCES.rglob("*.cpp"))
    objects = {source: library.with_name(f"{source.parent.name}_{source.stem}.o") for source in sources}

    def compile_one(source: Path) -> None:
        _run([*command, *flags, "-c", str(source), "-o", str(objects[source])], variant)

    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 4)) as pool:
        list(pool.map(compile_one, objects))
    # GCC's OpenMP runtime is left out: kernels.py makes the one that torch brought available, and a library that named
    # another would pull in that one as well. Clang's code needs Clang's own.
    openmp = ["-fopenmp"] if _is_clang(command) else []
    _run([*command, "-shared", *openmp, *map(str, objects.values()), "-o", str(library)], variant)


def _run(command: list[str], variant: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, check=False)
    if result.returncode != 0:
        complaints = result.stderr.splitlines()
        lines = [line for line in complaints if "error" in line] or complaints[:1] or ["no message"]
        raise BuildError(f"{command[0]} failed on the {variant} kernels: {lines[0]}")


def _is_clang(command: list[str]) -> bool:
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    return "clang" in result.stdout.lower()


def is_whole(library: Path) -> bool:
    """Whether a library is there and ends with the checksum of what comes before."""
    try:
        content = library.read_bytes()
    except OSError:
        return False
    digest = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-digest]).digest() == content[-digest:]


def packaged_variants() -> list[str]:
    """The instruction sets whose libraries came with the installation, best first."""
    return [variant for variant in VARIANT_FLAGS if is_whole(PACKAGED / library_name(variant))]


def find_library(variant: str) -> Path | None:
    """The packaged library of a variant, else the one that was compiled at first use, else None."""
    name = library_name(variant)
    for folder in (PACKAGED, cache_folder()):
        if is_whole(folder / name):
            return folder / name
    return None


def find_or_compile(variant: str) -> Path:
    """The library of a variant: the packaged one, the cached one, or a fresh one. BuildError where none can be had."""
    found = find_library(variant)
    if found is not None:
        return found
    compiler()  # else, as with the folder, the line below would promise what cannot be done
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot write {folder} ({error.strerror}): set XDG_CACHE_HOME to another folder") from error
    if not os.access(folder, os.W_OK):
        raise BuildError(f"cannot write {folder}: set XDG_CACHE_HOME to another folder")
    print(
        f"closeup-ns: compiling the CPU kernels ({variant}), once; this takes under a minute",
        file=sys.stderr,
        flush=True,
    )
    return compile_variant(variant, folder)
