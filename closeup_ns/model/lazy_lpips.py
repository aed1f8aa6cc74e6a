"""Splatfacto downloads LPIPS weights when it is built; with this it can be built offline, to train or to render."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torchmetrics.image.lpip as torchmetrics_lpip
from torch import Tensor, nn


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
