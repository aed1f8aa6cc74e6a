"""Requests to render and their results, the same for every backend. `checks` validates them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

RenderMode = Literal["RGB", "RGB+ED"]
"""What splatfacto asks for: colour, or colour and then the expected z-depth."""
RasterizeMode = Literal["classic", "antialiased"]
MAX_CHANNELS = 7
"""Most channels that one pass blends (a splat's record in the kernels is one cache line)."""
MAX_SURFEL_CHANNELS = 4
"""Most channels that one pass blends beside the normals (a surfel's record in the kernels is two cache lines)."""


@dataclass(frozen=True, eq=False)
class RenderRequest:
    """What 3D Gaussians and surfels have in common; shapes as ``rasterization`` documents them."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    radius_clip: float
    sh_degree: int | None
    render_mode: RenderMode

    @property
    def used_scales(self) -> Tensor:
        """The scales [N,...] that decide the image."""
        return self.scales

    @property
    def has_depth(self) -> bool:
        """Whether the last blended channel is z-depth, which is then divided by the accumulated alpha."""
        return self.render_mode == "RGB+ED"

    @property
    def channels(self) -> int:
        """How many channels are blended."""
        return (3 if self.sh_degree is not None else self.colors.shape[-1]) + int(self.has_depth)


@dataclass(frozen=True, eq=False)
class RasterRequest(RenderRequest):
    """The arguments of ``rasterization`` that decide the image; shapes as documented there."""

    eps2d: float
    absgrad: bool
    rasterize_mode: RasterizeMode


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
    """[C,H,W,D] colour, then depth where the render mode asks for it."""
    alphas: Tensor
    """[C,H,W,1]"""
    normals: Tensor
    """[C,H,W,3] accumulated, not normalised; camera space, towards the camera."""
    distort: Tensor | None
    """[C,H,W,1] depth distortion (Huang et al. 2024, Eq. 13, L1 as gsplat has it), None without ``distloss``."""
    info: dict[str, Any]
    """means2d [C,N,2], radii int [C,N], depths [C,N], ray_transforms [C,N,3,3], normals [C,N,3] in camera space,
    opacities [C,N], gradient_2dgs [C,N,2] and render_distort (``distort``)."""


def append_depth(request: RenderRequest, colors: Tensor, depths: Tensor) -> Tensor:
    """The channels that the render mode blends, from colours [...,N,D] and z-depths [...,N]."""
    return torch.cat([colors, depths[..., None]], dim=-1) if request.has_depth else colors


def expected_depth(request: RenderRequest, channels: Tensor, alphas: Tensor) -> Tensor:
    """Divide the blended depth, where there is one, by alpha, as gsplat does."""
    if not request.has_depth:
        return channels
    return torch.cat([channels[..., :-1], channels[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)
