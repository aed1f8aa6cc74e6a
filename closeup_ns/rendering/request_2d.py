"""What is to be rendered from surfels (2D Gaussians), checked once: the common language of the 2DGS backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from closeup_ns.rendering.checks import check_common
from closeup_ns.rendering.request import RenderRequest

MAX_SURFEL_CHANNELS = 4
"""Most channels that one pass blends beside the normals (a surfel's record in the kernels is two cache lines)."""


@dataclass(frozen=True, eq=False)
class SurfelRequest(RenderRequest):
    """The arguments of ``rasterization_2dgs`` that decide the images; shapes as documented there.

    ``scales`` is [N,3] as gsplat takes it: the third one is the disc's normal and is ignored.
    """

    distloss: bool
    """Whether the distortion is computed; it needs a render mode with depth."""

    @property
    def used_scales(self) -> Tensor:
        """[N,2]: the third one may be anything."""
        return self.scales[:, :2]


@dataclass(frozen=True, eq=False)
class SurfelImages:
    """What a 2DGS backend gives back for C cameras: everything is blended front to back with the same weights."""

    channels: Tensor
    """[C,H,W,D] colour, then depth where the render mode asks for it; the background is in."""
    alphas: Tensor
    """[C,H,W,1]"""
    normals: Tensor
    """[C,H,W,3] accumulated, not normalised; camera space, towards the camera; without background."""
    distort: Tensor | None
    """[C,H,W,1] depth distortion (Huang et al. 2024, Eq. 13, L1 as gsplat has it), None without ``distloss``."""
    median: Tensor | None
    """[C,H,W,1] z-depth where the transmittance passes one half, 0 where nothing is; None in mode RGB."""
    info: dict[str, Any]
    """means2d [C,N,2], radii int [C,N], depths [C,N], ray_transforms [C,N,3,3], normals [C,N,3] in camera space,
    opacities [C,N], gradient_2dgs [C,N,2] and render_distort (``distort``)."""


def check_surfel_request(request: SurfelRequest) -> None:
    """Raise ValueError, naming the argument, where shapes, modes or sizes do not fit together."""
    check_common(request, "rasterization_2dgs", MAX_SURFEL_CHANNELS)
    if request.distloss and not request.has_depth:
        raise ValueError("rasterization_2dgs: distloss needs a depth: render_mode 'D', 'ED', 'RGB+D' or 'RGB+ED'")
