"""gsplat 1.4.0's CUDA kernels behind our request."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.request import RasterRequest


def gsplat_arguments(request: RasterRequest, *, packed: bool, tile_size: int, sparse_grad: bool) -> dict[str, Any]:
    """The keyword arguments of ``gsplat.rasterization`` (1.4.0) for a request."""
    backgrounds = request.backgrounds
    if backgrounds is not None and request.has_depth and request.channels > 1:
        backgrounds = backgrounds[..., :-1]  # gsplat appends the depth channel's zero itself
    return {
        "means": request.means, "quats": request.quats, "scales": request.scales, "opacities": request.opacities,
        "colors": request.colors, "viewmats": request.viewmats, "Ks": request.Ks,
        "width": request.width, "height": request.height,
        "near_plane": request.near_plane, "far_plane": request.far_plane, "radius_clip": request.radius_clip,
        "eps2d": request.eps2d, "sh_degree": request.sh_degree, "packed": packed, "tile_size": tile_size,
        "backgrounds": backgrounds, "render_mode": request.render_mode, "sparse_grad": sparse_grad,
        "absgrad": request.absgrad, "rasterize_mode": request.rasterize_mode,
    }  # fmt: skip


def rasterize_gsplat(
    request: RasterRequest, *, packed: bool, tile_size: int, sparse_grad: bool
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render with gsplat. CloseupError where the tensors are not on a CUDA device or gsplat is not installed."""
    if not request.means.is_cuda:
        raise CloseupError(
            f"backend 'gsplat' needs CUDA tensors, these are on {request.means.device}; use backend='cpu' or 'auto'"
        )
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise CloseupError(
            f"gsplat cannot be imported ({error}); install it with: pip install gsplat==1.4.0"
        ) from error
    return rasterization(**gsplat_arguments(request, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad))
