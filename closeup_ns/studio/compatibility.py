"""Upstream breakages, mended in one place (research/nerfstudio.md, section 0).

* torch >= 2.6 refuses nerfstudio's own checkpoints, because a scheduler leaves numpy scalars in the optimizer state.
* Splatfacto downloads LPIPS weights when it is built, so it cannot be built offline, not even to render.
* A run that is loaded does not know where its config.yml lies, only where it was trained.
* An event writer (tensorboard, wandb) that fails ends the training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics.image.lpip as torchmetrics_lpip
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor, nn


def allow_nerfstudio_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read the numpy scalars of nerfstudio checkpoints, and nothing else."""
    scalar = np.core.multiarray.scalar  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals([scalar, np.dtype, type(np.dtype(np.float64))])


class LazyLpips(nn.Module):
    """LPIPS that loads its weights at the first use, and says why when they cannot be had.

    The network is kept out of the module tree, so checkpoints neither carry nor expect its weights.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._holder: list[nn.Module] = []
        self.missing: str | None = None
        """Why the metric cannot be computed; None while it can, or before the first use."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """LPIPS of two [1, 3, H, W] images in [0, 1]; NaN when the weights are missing."""
        if self.missing is None and not self._holder:
            try:
                self._holder.append(_real_lpips(**self._options).to(prediction.device))
            except OSError as error:  # urllib's URLError is one: no network, no cached weights
                self.missing = f"LPIPS weights are not cached and cannot be downloaded ({error})"
        if self.missing is not None:
            return prediction.new_full((), float("nan"))
        return self._holder[0](prediction, target)


_real_lpips = torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity


@contextmanager
def lazy_lpips() -> Iterator[None]:
    """While this is open, a model that builds LPIPS gets `LazyLpips` instead."""
    torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity = LazyLpips  # type: ignore[misc]
    try:
        yield
    finally:
        torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity = _real_lpips


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
