"""The rendering seam of surfels (2D Gaussians, Huang et al. 2024): one function, by gsplat 1.4.0's names.

Alpha is at most 0.999 and a pixel is finished before its transmittance would reach 1e-4. On the CPU the support is
exact (each pixel where alpha >= 1/255), a hit behind the camera does not count, and surfels are culled that have NaN
or infinite parameters or whose one-sigma disc reaches the camera's plane; gsplat 1.4.0 cuts the support at a box of
three sigma and draws the mirror images. The depth of a surfel is that of its centre, in gsplat as in ours.

What comes back beside the images is what gsplat's DefaultStrategy reads: ``gradient_2dgs`` [C,N,2], zeros whose
``.grad`` is what 2DGS densifies by, ``means2d`` [C,N,2] in the graph, ``radii`` int [C,N] in pixels (0: culled),
``depths``, ``normals`` [C,N,3] in camera space, ``ray_transforms`` [C,N,3,3], ``opacities``, ``render_distort``,
``width``, ``height``, ``n_cameras``, ``gaussian_ids`` (None).
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from closeup_ns.rendering.backend import Backend, choose_backend
from closeup_ns.rendering.checks import check_surfel_request, debugging, memory_errors, watch_gradients
from closeup_ns.rendering.gsplat_backend import rasterize_gsplat_2d
from closeup_ns.rendering.normals import normals_from_depth
from closeup_ns.rendering.reference.surfels import rasterize_reference_2d
from closeup_ns.rendering.request import RenderMode, SurfelImages, SurfelRequest

SurfelRender = tuple[Tensor, Tensor, Tensor, "Tensor | None", "Tensor | None", dict[str, Any]]
"""Channels [C,H,W,D]; alphas [C,H,W,1]; blended normals [C,H,W,3], world space, towards the camera, as long as alpha at
most (each camera's by its own rotation, which gsplat gets wrong beyond the first); unit normals of the depth [C,H,W,3],
world space, None in mode RGB; distortion [C,H,W,1], None without ``distloss``; information."""


def rasterization_2dgs(
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
    distloss: bool = False,
    backend: Literal["auto", "gsplat", "cpu", "torch"] = "auto",
) -> SurfelRender:
    """Render surfels into C pinhole cameras, differentiably. What comes back: see `SurfelRender`.

    Nothing lies behind them: a background is the caller's to add, by 1 - alpha.

    Args:
        means: Centres, world units and frame.
        quats, scales: Rotations wxyz of any length; linear standard deviations along the first two rotated axes, world
            units. The third scale is ignored: the third axis is the normal.
        colors: SH coefficients [N,K,3] when ``sh_degree`` is given, else channels [N,D].
        viewmats: World-to-camera, OpenCV axes (x right, y down, z forward).
        Ks: Intrinsics in pixels, pixel centres at +0.5; skew is ignored.
        near_plane, far_plane, radius_clip: What lies outside, or is at most so many pixels large, is culled.
        eps2d: Ignored, by gsplat, too: 2DGS has a filter of its own.
        packed, tile_size, sparse_grad: As in gsplat; they change no image. Only gsplat heeds them.
        render_mode: RGB, or RGB+ED: colour and then the expected z-depth (divided by alpha).
        distloss: Whether to compute the distortion; needs a depth.
        backend: "auto" is gsplat for CUDA tensors, our kernels for CPU tensors, PyTorch where these cannot be built.

    Raises:
        ValueError: A shape, size, mode or camera is wrong; the message names the argument. With ``CLOSEUP_DEBUG=1`` in
            the environment also: any value is (see checks.py), or a gradient that backward receives is not finite.
        MemoryError: The images or the lists of what each pixel shows do not fit into memory.
        CloseupError: The backend that was asked for cannot run here.
    """
    request = SurfelRequest(
        means=means, quats=quats, scales=scales, opacities=opacities, colors=colors, viewmats=viewmats, Ks=Ks,
        width=width, height=height, near_plane=near_plane, far_plane=far_plane, radius_clip=radius_clip,
        sh_degree=sh_degree, render_mode=render_mode, distloss=distloss,
    )  # fmt: skip
    return _checked_render(request, backend, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)


def _checked_render(
    request: SurfelRequest, backend: str, *, packed: bool, tile_size: int, sparse_grad: bool
) -> SurfelRender:
    """What `rasterization_2dgs` returns, by the backend that it chooses."""
    check_surfel_request(request)
    chosen = choose_backend(request.means, backend)  # pyright: ignore[reportArgumentType]
    if chosen == "gsplat":
        images = rasterize_gsplat_2d(request, packed=packed, tile_size=tile_size, sparse_grad=sparse_grad)
        rendered = _in_world(request, images)
    else:
        with memory_errors(request, "rasterization_2dgs"):
            images = _without_gsplat(request, chosen)
            rendered = _in_world(request, images)
        size = {"width": request.width, "height": request.height, "n_cameras": len(request.viewmats)}
        size["tile_size"] = tile_size
        images.info.update(**size, gaussian_ids=None, camera_ids=None)
    if debugging():
        _watch(rendered)
    return rendered


def _watch(rendered: SurfelRender) -> None:
    """Debug mode: every image's gradient is looked at on its way back."""
    names = ("channels", "alphas", "normals", "surface_normals", "distort")
    images = {name: image for name, image in zip(names, rendered) if isinstance(image, Tensor)}
    watch_gradients("rasterization_2dgs", **images)


def _without_gsplat(request: SurfelRequest, backend: Backend) -> SurfelImages:
    """Our kernels or the PyTorch reference."""
    if backend == "cpu":
        from closeup_ns.rendering.cpu.surfels import rasterize_cpu_2d

        return rasterize_cpu_2d(request)
    return rasterize_reference_2d(request)


def _in_world(request: SurfelRequest, images: SurfelImages) -> SurfelRender:
    """The images with normals in world space, and those of the depth beside them."""
    normals = images.normals @ request.viewmats[:, None, :3, :3]
    surface_normals = None
    if request.has_depth:
        surface_normals = normals_from_depth(images.channels[..., -1:], request.viewmats, request.Ks)
    return images.channels, images.alphas, normals, surface_normals, images.distort, images.info
