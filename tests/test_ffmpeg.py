"""ffmpeg is a command even where the system has none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from closeup_ns import ffmpeg


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without ffmpeg."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return tmp_path


def make_program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_systems_own_is_left_alone(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_program(bare / "bin" / "ffmpeg", "system")
    monkeypatch.setenv("PATH", str(own.parent))
    assert ffmpeg.ensure_ffmpeg_on_path() == own
    assert os.environ["PATH"] == str(own.parent)


def test_the_carried_one_becomes_a_command(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = make_program(bare / "wheel" / "ffmpeg-linux-v7", "carried")
    monkeypatch.setattr(ffmpeg, "_carried_ffmpeg", lambda: carried)
    ffmpeg.ensure_ffmpeg_on_path()
    found = shutil.which("ffmpeg")
    assert found is not None
    assert subprocess.run([found], capture_output=True, text=True).stdout == "carried\n"
    path = os.environ["PATH"]
    assert path.startswith(str(bare / "empty")), "nothing else may be shadowed"
    ffmpeg.ensure_ffmpeg_on_path()
    assert os.environ["PATH"] == path


def test_none_anywhere_is_said_quietly(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "_carried_ffmpeg", lambda: None)
    assert ffmpeg.ensure_ffmpeg_on_path() is None
    assert os.environ["PATH"] == str(bare / "empty")


def test_the_wheels_binary_runs(bare: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    found = ffmpeg.ensure_ffmpeg_on_path()
    assert found is not None
    assert subprocess.run([found, "-version"], capture_output=True, text=True).stdout.startswith("ffmpeg version")
