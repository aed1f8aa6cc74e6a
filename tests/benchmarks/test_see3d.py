"""What a joint pass costs: that it runs, and that nothing is claimed where nothing was measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks import see3d


def test_a_small_pass_is_measured_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert see3d.main(["--small", "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert "4 pictures at 64x64" in said and "s for 53 steps (from 2 steps asked for)" in said


def test_without_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert see3d.main(["--frames", "4"]) == 1
    assert "is_available() is False" in capsys.readouterr().out
