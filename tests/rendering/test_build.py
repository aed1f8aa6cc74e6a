"""Compiling the kernels: names, failures, races and damaged files."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from closeup_ns.rendering import build
from tests.rendering.cross import needs_compiler


@pytest.fixture
def tiny_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder that compiles at once."""
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "PACKAGED", tmp_path / "_lib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return sources


def test_name_follows_sources_and_instruction_set(tiny_sources: Path) -> None:
    first = build.library_name("generic")
    assert build.library_name("avx2").split("_")[2] != first.split("_")[2]
    (tiny_sources / "one.cpp").write_text("int other;\n")
    assert build.library_name("generic") != first


@needs_compiler
def test_compiled_once_then_found(tiny_sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build.find_or_compile("generic")
    assert path.parent == build.cache_folder() and len(capsys.readouterr().err.splitlines()) == 1
    stamp = path.stat().st_mtime_ns
    assert build.find_or_compile("generic") == path and path.stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""
    assert os.listdir(build.cache_folder()) == [path.name], "no temporary file is left"


@needs_compiler
def test_the_library_names_no_openmp_runtime_of_its_own(tiny_sources: Path) -> None:
    """Torch's may be called otherwise; then both would be loaded, each with its own threads."""
    if build._is_clang(shlex.split(build.compiler())):
        pytest.skip("Clang's code needs Clang's runtime")
    (tiny_sources / "one.cpp").write_text(
        '#include <omp.h>\nextern "C" int answer() { return omp_get_max_threads(); }\n'
    )
    assert b"libgomp" not in build.find_or_compile("generic").read_bytes()


@needs_compiler
def test_packaged_library_comes_first(tiny_sources: Path) -> None:
    packaged = build.compile_variant("generic", build.PACKAGED)
    assert build.find_or_compile("generic") == packaged


@needs_compiler
@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.999])
def test_a_library_cut_short_is_compiled_anew(tiny_sources: Path, keep: float) -> None:
    path = build.find_or_compile("generic")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    assert build.find_library("generic") is None
    assert build.find_or_compile("generic") == path and build.is_whole(path)
    ctypes.CDLL(str(path))


@needs_compiler
def test_damaged_package_is_passed_over(tiny_sources: Path) -> None:
    packaged = build.compile_variant("generic", build.PACKAGED)
    packaged.write_bytes(packaged.read_bytes().replace(b"answer", b"anwser"))
    assert build.packaged_variants() == []
    assert build.find_or_compile("generic").parent == build.cache_folder()


@needs_compiler
def test_two_processes_that_compile_at_once(tiny_sources: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, importlib.util as u\n"
        f"spec = u.spec_from_file_location('build', {build.__file__!r})\n"
        "build = u.module_from_spec(spec); spec.loader.exec_module(build)\n"
        "build.SOURCES, build.PACKAGED = map(pathlib.Path, sys.argv[1:])\n"
        "print(build.find_or_compile('generic'))"
    )
    command = [sys.executable, "-c", program, str(tiny_sources), str(tmp_path / "_lib")]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=600)[0].strip() for process in pair}
    assert [process.returncode for process in pair] == [0, 0]
    (path,) = printed
    assert build.is_whole(Path(path)) and os.listdir(build.cache_folder()) == [Path(path).name]


@needs_compiler
def test_broken_source_leaves_nothing(tiny_sources: Path) -> None:
    (tiny_sources / "one.cpp").write_text("this is not C++\n")
    with pytest.raises(build.BuildError, match="failed on the generic kernels") as caught:
        build.find_or_compile("generic")
    assert "\n" not in str(caught.value)
    assert os.listdir(build.cache_folder()) == []


@pytest.mark.parametrize(
    ("machine", "flags", "runnable", "buildable"),
    [
        ("x86_64", build._REQUIRED_CPU_FLAGS["avx512"], ["avx512", "avx2", "sse2", "generic"], 3),
        ("AMD64", frozenset({"avx2", "fma", "avx512f"}), ["avx2", "sse2", "generic"], 3),
        ("x86_64", frozenset({"avx2"}), ["sse2", "generic"], 3),
        ("x86_64", frozenset(), ["sse2", "generic"], 3),
        ("aarch64", frozenset(), ["neon", "generic"], 1),
        ("arm64", frozenset(), ["neon", "generic"], 1),
        ("riscv64", frozenset(), ["generic"], 1),
    ],
)
def test_instruction_sets_follow_the_machine(
    machine: str, flags: frozenset[str], runnable: list[str], buildable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    monkeypatch.setattr(build, "cpu_flags", lambda: flags)
    assert build.runnable_variants() == runnable
    assert len(build.buildable_variants()) == buildable
