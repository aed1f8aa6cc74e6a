"""Upstream breakages, mended in one place (research/nerfstudio.md, section 0).

* torch >= 2.6 refuses nerfstudio's own checkpoints, because a scheduler leaves numpy scalars in the optimizer state.
* A run that is loaded does not know where its config.yml lies, only where it was trained.
* An event writer (tensorboard, wandb) that fails ends the training.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.utils.rich_utils import CONSOLE


def allow_nerfstudio_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read the numpy scalars of nerfstudio checkpoints, and nothing else."""
    scalar = np.core.multiarray.scalar  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals([scalar, np.dtype, type(np.dtype(np.float64))])


def config_being_loaded() -> Path | None:
    """The config.yml that nerfstudio's ``eval_setup`` is loading, for the config method that it calls; else None.

    ``eval_setup`` asks a config for its checkpoints and does not say where the config came from, so its caller's frame
    is looked at: ns-eval, ns-render, ns-export and ns-viewer have no other seam.
    """
    frame = sys._getframe(2)
    return frame.f_locals["config_path"] if frame.f_code.co_name == "eval_setup" else None


class ForgivingWriter:
    """An event writer whose failure costs its own events and not the training; it is said once."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._failed = inner, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: Any) -> None:
            if self._failed:
                return
            try:
                method(*arguments)
            except Exception as error:
                self._failed = True
                said = f"{type(self._inner).__name__} fails ({error}): the training goes on without its events"
                CONSOLE.print(f"[yellow]{said}", soft_wrap=True)

        return call


def forgive_event_writers() -> None:
    """Let no event writer that is set up now end the training later."""
    from nerfstudio.utils import writer  # not at the top: imported before nerfstudio's configs it fails on itself

    writer.EVENT_WRITERS[:] = [
        each if isinstance(each, (writer.LocalWriter, ForgivingWriter)) else ForgivingWriter(each)
        for each in writer.EVENT_WRITERS
    ]
