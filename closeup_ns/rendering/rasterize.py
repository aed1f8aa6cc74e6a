"""The rendering seam: one function for every device, with the signature that splatfacto calls (gsplat 1.4.0).

Support is exact (each pixel where alpha >= 1/255), alpha is at most 0.999, and a pixel is finished before its
transmittance would reach 1e-4. Gaussians with NaN or infinite parameters are culled, those with such colours are not
drawn: neither touches a pixel or a gradient of another. ``CLOSEUP_DEBUG=1`` makes errors of them.

What comes back beside colour and alpha is what gsplat's DefaultStrategy reads: ``means2d`` [C,N,2] in the graph,
``radii`` int [C,N] in pixels (0: culled), ``depths``, ``conics``, ``opacities``, ``width``, ``height``, ``n_cameras``,
``gaussian_ids`` (None).
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from closeup_ns.rendering.backend import choose_backend
from closeup_ns.rendering.checks import check_request, debugging, memory_errors, watch_gradients
from closeup_ns.rendering.gsplat_backend import rasterize_gsplat
from closeup_ns.rendering.reference.gaussians import rasterize_reference
from closeup_ns.rendering.request import RasterizeMode, RasterRequest, RenderMode


def rasterization(
    means: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    colors: Tensor,
    viewmats: Float[Tensor, "C 4 4"],
    Ks: Float[Tensor, "C 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = False,
    tile_size: int = 16,
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: RasterizeMode = "classic",
    backend: Literal["auto", "gsplat", "cpu", "torch"] = "auto",
) -> tuple[Float[Tensor, "C H W D"], Float[Tensor, "C H W 1"], dict[str, Any]]:
    """Render 3D Gaussians (Kerbl et al. 2023) into C pinhole cameras, differentiably: channels, alpha, information.

    Nothing lies behind them: a background is the caller's to add, by 1 - alpha.

    Args:
        means: Centres, world units and frame.
        quats, scales: Rotations wxyz of any length; linear standard deviations along the rotated axes, world units.
        colors: SH coefficients [N,K,3] when ``sh_degree`` is given, else channels [N,D].
        viewmats: World-to-camera, OpenCV axes (x right, y down, z forward).
        Ks: Intrinsics in pixels, pixel centres at +0.5; skew is ignored.
        near_plane, far_plane, radius_clip: What lies outside, or is at most so many pixels large, is culled.
        eps2d: Variance in square pixels that is added to every projected Gaussian.
        packed, tile_size, sparse_grad: As in gsplat; they change no image. Our kernels ignore them.
        render_mode: RGB, or RGB+ED: colour and then the expected z-depth (divided by alpha).
        absgrad: Also sum the absolute screen-space gradients into ``info["means2d"].absgrad`` during backward.
        rasterize_mode: "antialiased" scales each opacity by sqrt(det(cov) / det(cov + eps2d)) (Mip-Splatting).
        backend: "auto" is gsplat for CUDA tensors, our kernels for CPU tensors, PyTorch where these cannot be built.

    Raises:
        ValueError: A shape, size, mode or camera is wrong; the message names the argument. With ``CLOSEUP_DEBUG=1`` in
            the environment also: any value is (see checks.py), or a gradient that backward receives is not finite.
        MemoryError: The images or the lists of what each pixel shows do not fit into memory.
        CloseupError: The backend that was asked for cannot run here.
    """
    request = RasterRequest(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks,
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip, eps2d=eps2d,
        sh_degree=sh_degree, render_mode=render_mode, absgrad=absgrad, rasterize_mode=rasterize_mode,
    )  # fmt: skip
    return _checked_render(request, backend, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)


def _checked_render(
    request: RasterRequest, backend: str, *, packed: bool, tile_size: int, sparse_grad: bool
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """What `rasterization` returns, by the backend that it chooses."""
    check_request(request)
    chosen = choose_backend(request.means, backend)  # pyright: ignore[reportArgumentType]
    if chosen == "gsplat":
        channels, alphas, info = rasterize_gsplat(request, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)
    else:
        with memory_errors(request, "rasterization"):
            channels, alphas, info = _without_gsplat(request, chosen)
        info["tile_size"] = tile_size
    if debugging():
        watch_gradients("rasterization", channels=channels, alphas=alphas)
    return channels, alphas, info


def _without_gsplat(request: RasterRequest, backend: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Our kernels or the PyTorch reference, with gsplat's remaining keys in the information."""
    if backend == "cpu":
        from closeup_ns.rendering.cpu.gaussians import rasterize_cpu

        channels, alphas, info = rasterize_cpu(request)
    else:
        channels, alphas, info = rasterize_reference(request)
    size = {"width": request.width, "height": request.height, "n_cameras": len(request.viewmats)}
    info.update(**size, gaussian_ids=None, camera_ids=None)
    return channels, alphas, info
