"""gsplat 1.4.0's CUDA kernels behind our request."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.request import RasterRequest, RenderRequest, SurfelImages, SurfelRequest


def _common_arguments(request: RenderRequest) -> dict[str, Any]:
    """What both of gsplat's functions take by the same name."""
    return {
        "means": request.means, "quats": request.quats, "scales": request.scales, "opacities": request.opacities,
        "colors": request.colors, "viewmats": request.viewmats, "Ks": request.Ks,
        "width": request.width, "height": request.height,
        "near_plane": request.near_plane, "far_plane": request.far_plane, "radius_clip": request.radius_clip,
        "sh_degree": request.sh_degree, "render_mode": request.render_mode,
    }  # fmt: skip


def gsplat_arguments(request: RasterRequest, *, packed: bool, tile_size: int, sparse_grad: bool) -> dict[str, Any]:
    """The keyword arguments of ``gsplat.rasterization`` (1.4.0) for a request."""
    return {
        **_common_arguments(request), "eps2d": request.eps2d, "absgrad": request.absgrad,
        "packed": packed, "tile_size": tile_size, "sparse_grad": sparse_grad, "rasterize_mode": request.rasterize_mode,
    }  # fmt: skip


def gsplat_arguments_2d(request: SurfelRequest, *, packed: bool, tile_size: int, sparse_grad: bool) -> dict[str, Any]:
    """The keyword arguments of ``gsplat.rasterization_2dgs`` (1.4.0) for a request."""
    return {
        **_common_arguments(request), "distloss": request.distloss,
        "packed": packed, "tile_size": tile_size, "sparse_grad": sparse_grad,
    }  # fmt: skip


def surfel_images_of_gsplat(request: SurfelRequest, outputs: tuple[Any, ...]) -> SurfelImages:
    """What ``gsplat.rasterization_2dgs`` gave back, its normals [C,H,W,3] back in each camera's own frame.

    gsplat turns the normals of all cameras into the world by the first camera's rotation. Its normals of the depth are
    not used: it has them for some render modes only.
    """
    channels, alphas, normals, _, distort, _, info = outputs
    distort = distort if request.distloss else None
    return SurfelImages(
        channels=channels, alphas=alphas, normals=normals @ request.viewmats[0, :3, :3].T, distort=distort,
        info={**info, "render_distort": distort},
    )  # fmt: skip


def rasterize_gsplat(
    request: RasterRequest, *, packed: bool, tile_size: int, sparse_grad: bool
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render with gsplat. CloseupError where the tensors are not on a CUDA device or gsplat is not installed."""
    arguments = gsplat_arguments(request, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)
    return _gsplat(request).rasterization(**arguments)


def rasterize_gsplat_2d(request: SurfelRequest, *, packed: bool, tile_size: int, sparse_grad: bool) -> SurfelImages:
    """Render surfels with gsplat. CloseupError where the tensors are not on a CUDA device or gsplat is missing."""
    arguments = gsplat_arguments_2d(request, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)
    return surfel_images_of_gsplat(request, _gsplat(request).rasterization_2dgs(**arguments))


def _gsplat(request: RenderRequest) -> ModuleType:
    """The gsplat package, once it is certain that it can render this request."""
    if not request.means.is_cuda:
        raise CloseupError(
            f"backend 'gsplat' needs CUDA tensors, these are on {request.means.device}; use backend='cpu' or 'auto'"
        )
    try:
        import gsplat
    except ImportError as error:
        raise CloseupError(
            f"gsplat cannot be imported ({error}); install it with: pip install gsplat==1.4.0"
        ) from error
    return gsplat
