"""The interface of a metric. A metric that cannot run is absent from the results, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import CloseupError

Needs = Literal["truth", "counted", "reference", "nothing"]
"""What a metric compares a render with: the photograph of the same camera, the pixels [N, 3] of it that its mask lets
count (with those of the render), a photograph of the same thing from elsewhere, or nothing at all."""


class MetricUnavailable(CloseupError):
    """A metric cannot run here. The message is its reason in ``missing``: what is lacking, and what to do."""


@dataclass(frozen=True)
class Provenance:
    """Where a metric's figures come from; written beside them."""

    implementation: str
    """Package and function, with its version where it has one."""
    backbone: str = ""
    """Network, where there is one."""
    weights: str = ""
    """Name of the weights' file; empty where none are needed."""
    sha256: str = ""
    """Checksum of that file."""
    notes: str = ""
    """Conventions that a reader must know to compare figures: resizing, colour space, tokens."""


@dataclass(frozen=True)
class Metric:
    """A number for a render."""

    name: str
    """Key in the results: psnr, ssim, lpips_vgg, dino, ..."""
    needs: Needs
    higher_is_better: bool
    provenance: Provenance
    function: Callable[..., float]
    """Of the render and what ``needs`` names: RGB in [0, 1], rounded to 8 bits as a saved picture is."""

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "H W 3"], against: Float[Tensor, "h w 3"] | None = None) -> float:
        """Score a render."""
        return self.function(image) if self.needs == "nothing" else self.function(image, against)


@dataclass(frozen=True)
class MetricSpec:
    """How to get a metric by its name."""

    name: str
    """Its key in the results."""
    needs: Needs
    higher_is_better: bool
    build: str = field(repr=False)
    """``module:function`` that takes ``(spec, options)`` and returns a `Metric` or raises `MetricUnavailable`."""

    def metric(self, provenance: Provenance, function: Callable[..., float]) -> Metric:
        """The metric itself, once its weights are there."""
        return Metric(self.name, self.needs, self.higher_is_better, provenance, function)


@dataclass
class MetricOptions:
    """Options of the metrics that have weights; shared by ns-eval, closeup-gs eval and closeup-gs bench."""

    weights: dict[str, str] = field(default_factory=dict)
    """Metric name -> local weights file or folder, in place of what the hub or a cache has. For dino also a hub id
    (facebook/dino-vits16 compares with DreamBooth's DINO)."""
    allow_download: bool = False
    """Fetch weights from the hub where no cache has them."""
    device: str = "cpu"
    """Where networks run."""
