"""Compiling the kernels: names, failures, races, and what happens without a compiler."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch

from closeup_ns.errors import CloseupError
from closeup_ns.rendering import backend, build
from closeup_ns.rendering.rasterize import rasterization


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


def has_compiler() -> bool:
    try:
        build.compiler()
    except build.BuildError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C++ compiler here")


def test_name_follows_sources_and_instruction_set(tiny_sources: Path) -> None:
    first = build.library_name("generic")
    assert build.library_name("avx2").split("_")[2] != first.split("_")[2]
    (tiny_sources / "one.cpp").write_text("int other;\n")
    assert build.library_name("generic") != first


@needs_compiler
def test_flags_of_the_environment_make_another_library(tiny_sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny_sources / "one.cpp").write_text(
        'extern "C" __attribute__((visibility("default"))) int answer() { return ANSWER; }\n'
    )
    plain = build.library_name("generic")
    monkeypatch.setenv("CLOSEUP_EXTRA_CXXFLAGS", "-DANSWER=43 '-DUNUSED=two words'")
    path = build.find_or_compile("generic")
    assert path.name != plain and ctypes.CDLL(str(path)).answer() == 43


@needs_compiler
def test_compiled_once_then_found(tiny_sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = build.find_or_compile("generic")
    assert path.parent == build.cache_folder() and len(capsys.readouterr().err.splitlines()) == 1
    stamp = path.stat().st_mtime_ns
    assert build.find_or_compile("generic") == path and path.stat().st_mtime_ns == stamp
    assert capsys.readouterr().err == ""
    assert os.listdir(build.cache_folder()) == [path.name], "no temporary file is left"


@needs_compiler
def test_packaged_library_comes_first(tiny_sources: Path) -> None:
    packaged = build.compile_variant("generic", build.PACKAGED)
    assert build.find_or_compile("generic") == packaged


@needs_compiler
def test_broken_source_leaves_nothing(tiny_sources: Path) -> None:
    (tiny_sources / "one.cpp").write_text("this is not C++\n")
    with pytest.raises(build.BuildError, match="failed on the generic kernels") as caught:
        build.find_or_compile("generic")
    assert "\n" not in str(caught.value)
    assert os.listdir(build.cache_folder()) == []


def test_missing_compiler_is_named(tiny_sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler is not on PATH"):
        build.find_or_compile("generic")


def test_unwritable_cache_is_a_build_error(tiny_sources: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(build.BuildError, match="cannot compile"):
        build.find_or_compile("generic")


def test_this_cpu_runs_what_it_can_build() -> None:
    assert build.runnable_variants()[-1] == "generic"
    assert set(build.runnable_variants()) <= set(build.VARIANT_FLAGS)


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


def test_without_kernels_pytorch_renders_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_kernels() -> None:
        raise CloseupError("no C++ compiler")

    monkeypatch.setattr(backend, "load_kernels", no_kernels)
    monkeypatch.setattr(backend, "kernels_available", backend.kernels_available.__wrapped__)
    backend._say_once.cache_clear()
    eye, one = torch.eye(4)[None], torch.ones(1)
    for _ in range(2):
        image, _, _ = rasterization(
            torch.tensor([[0.0, 0, 2]]),
            torch.ones(1, 4),
            torch.ones(1, 3),
            one,
            torch.ones(1, 3),
            eye,
            eye[:, :3, :3],
            8,
            8,
        )
    assert image.max() > 0.5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "plain PyTorch" in lines[0] and "no C++ compiler" in lines[0]
    assert "plain PyTorch" in backend.describe_backend("cpu")
