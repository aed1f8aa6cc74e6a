"""What is to be rendered, checked once: the common language of the backends."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from closeup_ns.rendering.checks import check_cameras, check_sizes, check_values, debugging

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
RasterizeMode = Literal["classic", "antialiased"]
MAX_CHANNELS = 7
"""Most channels that one pass blends (a splat's record in the kernels is one cache line)."""


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
    backgrounds: Tensor | None
    """[C, D] for all D blended channels, depth included; None is black."""
    render_mode: RenderMode
    absgrad: bool

    @property
    def used_scales(self) -> Tensor:
        """The scales [N,...] that decide the image."""
        return self.scales

    @property
    def has_depth(self) -> bool:
        """Whether the last blended channel is z-depth."""
        return self.render_mode != "RGB"

    @property
    def depth_is_expected(self) -> bool:
        """Whether that depth is divided by the accumulated alpha."""
        return self.render_mode.endswith("ED")

    @property
    def channels(self) -> int:
        """How many channels are blended."""
        if self.render_mode in ("D", "ED"):
            return 1
        return (3 if self.sh_degree is not None else self.colors.shape[-1]) + int(self.has_depth)


@dataclass(frozen=True, eq=False)
class RasterRequest(RenderRequest):
    """The arguments of ``rasterization`` that decide the image; shapes as documented there."""

    eps2d: float
    rasterize_mode: RasterizeMode


def append_depth(request: RenderRequest, colors: Tensor, depths: Tensor) -> Tensor:
    """The channels that the render mode blends, from colours [...,N,D] and z-depths [...,N]."""
    if request.render_mode == "RGB":
        return colors
    if request.render_mode in ("D", "ED"):
        return depths[..., None]
    return torch.cat([colors, depths[..., None]], dim=-1)


def expected_depth(request: RenderRequest, channels: Tensor, alphas: Tensor) -> Tensor:
    """Divide the blended depth by alpha, as gsplat does, in the modes that ask for it."""
    if not request.depth_is_expected:
        return channels
    return torch.cat([channels[..., :-1], channels[..., -1:] / alphas.clamp(min=1e-10)], dim=-1)


def check_request(request: RasterRequest) -> None:
    """Raise ValueError, naming the argument, where shapes, modes or sizes do not fit together."""
    check_common(request, "rasterization", MAX_CHANNELS)
    if not 0 <= request.eps2d < math.inf:
        raise ValueError(f"rasterization: eps2d is {request.eps2d}, expected 0 or more square pixels")
    if request.rasterize_mode not in get_args(RasterizeMode):
        raise ValueError(
            f"rasterization: rasterize_mode {request.rasterize_mode!r} is none of {get_args(RasterizeMode)}"
        )


def check_common(request: RenderRequest, caller: str, max_channels: int) -> None:
    """The checks that hold for every request: ValueError that names ``caller`` and its argument."""
    count, cameras = len(request.means), len(request.viewmats)
    if request.render_mode not in get_args(RenderMode):
        raise ValueError(f"{caller}: render_mode {request.render_mode!r} is none of {get_args(RenderMode)}")
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "means": (request.means, (count, 3)),
        "quats": (request.quats, (count, 4)),
        "scales": (request.scales, (count, 3)),
        "opacities": (request.opacities, (count,)),
        "viewmats": (request.viewmats, (cameras, 4, 4)),
        "Ks": (request.Ks, (cameras, 3, 3)),
    }
    if request.backgrounds is not None:
        shapes["backgrounds"] = (request.backgrounds, (cameras, request.channels))
    for name, (tensor, shape) in shapes.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{caller}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    _check_colors(request, caller, max_channels)
    check_sizes(request, caller)
    if debugging():
        check_values(request, caller)
    elif request.means.device.type == "cpu":  # on a GPU the look at the values would wait for all work before it
        check_cameras(request, caller)


def _check_colors(request: RenderRequest, caller: str, max_channels: int) -> None:
    count, cameras = len(request.means), len(request.viewmats)
    shape, degree = tuple(request.colors.shape), request.sh_degree
    if degree is not None:
        if not 0 <= degree <= 3:
            raise ValueError(f"{caller}: sh_degree is {degree}, supported are 0 to 3")
        fits = len(shape) == 3 and shape[0] == count and shape[1] >= (degree + 1) ** 2 and shape[2] == 3
        if not fits:
            needed = (count, f">={(degree + 1) ** 2}", 3)
            raise ValueError(f"{caller}: colors has shape {shape}, expected {needed} for sh_degree {degree}")
    elif shape[:-1] not in ((count,), (cameras, count)):
        raise ValueError(f"{caller}: colors has shape {shape}, expected ({count}, D) or ({cameras}, {count}, D)")
    if request.channels < 1:
        raise ValueError(f"{caller}: colors has shape {shape}, which leaves no channel to render")
    if request.channels > max_channels:
        raise ValueError(
            f"{caller}: {request.channels} channels in one call, at most {max_channels} with depth; split the colours"
        )
