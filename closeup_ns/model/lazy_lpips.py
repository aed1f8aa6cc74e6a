"""Splatfacto downloads LPIPS weights when it is built; with this it can be built offline, to train or to render."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torchmetrics.image.lpip as torchmetrics_lpip
from torch import Tensor, nn


class LazyLpips(nn.Module):
    """LPIPS that loads its weights at the first use; NaN where they cannot be had.

    The network is kept out of the module tree, so checkpoints neither carry nor expect its weights.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options
        self._loaded: list[nn.Module | None] = []

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """LPIPS of two [1, 3, H, W] images in [0, 1]."""
        if not self._loaded:
            try:
                self._loaded.append(_real_lpips(**self._options).to(prediction.device))
            except OSError:  # urllib's URLError is one: no network, no cached weights
                self._loaded.append(None)
        network = self._loaded[0]
        return prediction.new_full((), float("nan")) if network is None else network(prediction, target)


_real_lpips = torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity


@contextmanager
def lazy_lpips() -> Iterator[None]:
    """While this is open, a model that builds LPIPS gets `LazyLpips` instead."""
    torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity = LazyLpips  # type: ignore[misc]
    try:
        yield
    finally:
        torchmetrics_lpip.LearnedPerceptualImagePatchSimilarity = _real_lpips
