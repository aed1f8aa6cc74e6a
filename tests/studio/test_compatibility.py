"""Upstream's breakages stay mended."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from viser import _client_autobuild

import closeup_ns.method_config  # noqa: F401  (allows the checkpoints)
from closeup_ns.errors import DataError
from closeup_ns.studio.compatibility import show_errors_as_lines


def test_a_checkpoint_with_nerfstudios_numpy_scalars_is_read(tmp_path: Path) -> None:
    """Made as nerfstudio makes it: its exponential decay leaves a numpy scalar in the state."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.01)
    scheduler = ExponentialDecaySchedulerConfig(lr_final=1e-4, max_steps=10).setup().get_scheduler(optimizer, 0.01)
    optimizer.step()
    scheduler.step()
    state = {
        "schedulers": {"means": scheduler.state_dict()},
        "optimizers": optimizer.state_dict(),
        "x": np.float64(0.5),
    }
    torch.save(state, tmp_path / "step.ckpt")
    loaded = torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert loaded["x"] == 0.5
    assert loaded["schedulers"]["means"]["last_epoch"] == 1


def test_our_errors_are_one_line_and_others_go_to_the_hook_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others: list[BaseException | None] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: others.append(error))
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/ns-train", "closeup-gs"])
    show_errors_as_lines()
    error, other = DataError("no capture:\n  take photos"), ValueError("a bug")
    sys.excepthook(DataError, error, None)
    assert capsys.readouterr().err == "ns-train: no capture: take photos\n" and not others
    sys.excepthook(ValueError, other, None)
    monkeypatch.setenv("CLOSEUP_DEBUG", "1")
    sys.excepthook(DataError, error, None)
    assert others == [other, error] and not capsys.readouterr().err


def test_a_viewer_starts_although_another_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(psutil, "process_iter", lambda: iter([SimpleNamespace(cwd=gone)]))
    _client_autobuild.ensure_client_is_built()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code from a checkpoint ran",))


def test_nothing_else_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "evil.ckpt", weights_only=True)
    assert capsys.readouterr().out == ""
