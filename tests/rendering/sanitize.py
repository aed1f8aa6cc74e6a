"""`make sanitize`: the kernels under the address, leak and undefined-behaviour sanitizers, on random and hard scenes.

Builds sanitize_driver.cpp with the kernels, once per instruction set, and runs it; the first finding ends
it with a stack trace. Standard library only. The thread sanitizer is left out: it does not know the barriers of libgomp
and reports every parallel loop. That threads do not interfere is tested by bits (test_thread_count_changes_no_bit).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "closeup_ns" / "rendering" / "build.py"
# -O1 keeps the stack traces; line numbers without variables (-g1) halve the time of the vector code.
FLAGS = (
    "-O1", "-g1", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fno-omit-frame-pointer",
    "-DCLOSEUP_WIDEST_ONLY",
    "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all",
)  # fmt: skip
DEFAULT_VARIANTS = ("avx2", "neon")
"""One instruction set in CI, for the compiler's time: AVX-512 and SSE2 differ from it in their csrc/lanes/*.h alone."""


def load_build() -> ModuleType:
    """build.py by its path, as setup.py loads it: without importing torch."""
    spec = importlib.util.spec_from_file_location("closeup_build", BUILD)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def compile_driver(build: ModuleType, variant: str, folder: Path, jobs: int) -> Path:
    """The driver for an instruction set; CalledProcessError where a source does not compile."""
    flags = [*shlex.split(build.compiler()), *FLAGS, *build.VARIANT_FLAGS[variant], f"-I{build.SOURCES}"]
    sources = [*build.SOURCES.rglob("*.cpp"), *HERE.glob("sanitize_driver*.cpp")]
    sources.sort(
        key=lambda path: path.stat().st_size, reverse=True
    )  # the long ones first, so that none comes last alone

    def compile_one(source: Path) -> str:
        target = folder / f"{variant}_{source.parent.name}_{source.stem}.o"
        subprocess.run([*flags, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(compile_one, sources))
    driver = folder / f"driver_{variant}"
    subprocess.run([*flags, *objects, "-o", str(driver)], check=True)
    return driver


def main() -> int:
    """Exit status 0 where every instruction set is clean."""
    parser = argparse.ArgumentParser(description="Run the kernels under the sanitizers.")
    parser.add_argument("variants", nargs="*", help="instruction sets (default: avx2 or neon, as this CPU runs)")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="compilers at a time")
    arguments = parser.parse_args()
    build = load_build()
    runnable = build.runnable_variants()
    environment = {
        **os.environ,
        "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_WAIT_POLICY": "passive",
    }
    for variant in arguments.variants or [name for name in DEFAULT_VARIANTS if name in runnable] or runnable[:1]:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="closeup-sanitize-") as folder:
            driver = compile_driver(build, variant, Path(folder), arguments.jobs)
            compiled = time.monotonic()
            result = subprocess.run([str(driver)], env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            print(result.stdout[-2000:], result.stderr, sep="\n", file=sys.stderr)
            print(f"sanitizers: {variant} is not clean", file=sys.stderr)
            return 1
        spent = f"{compiled - started:.0f} s to compile, {time.monotonic() - compiled:.0f} s to run"
        print(f"sanitizers: {variant} is clean ({spent})", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
