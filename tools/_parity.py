"""The same Gaussians through two backends: images, depth, alpha, and every gradient.

gsplat 1.4.0 cuts a Gaussian off at three sigma of its longest axis, tile by tile; ours counts every pixel where alpha
is at least 1/255. The two agree where that lies within three sigma: opacity * exp(-9/2) < 1/255, so an opacity below
0.353. There they must agree to float tolerance. Full opacities are reported, with the share of the difference that is
gone once the opacities are limited: the truncation's.

Still then, rounding may move a pair over the threshold of 1/255, so images are judged by their PSNR, not by their
largest difference, and depth only where there is something to see.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from closeup_ns.rendering.gsplat_backend import gsplat_arguments
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.request import RasterRequest
from closeup_ns.views.psnr import psnr
from tools._report import CheckFailed, Figures

METHODS = ("3dgs classic", "3dgs antialiased", "2dgs")
STRICT_OPACITY = {"3dgs classic": 0.35, "3dgs antialiased": 0.35, "2dgs": 0.2}
"""Below 0.353; lower for surfels, whose perspective moves the three-sigma disc away from thrice the one-sigma box."""
LEAST_PSNR = 80.0
"""dB between images of range 1: a root mean square of 1e-4."""
MOST_GRADIENT_ERROR = 2e-3
"""Relative L2 norm. gsplat is compiled with fast-math and adds with atomics, in any order."""
MOST_DEPTH_ERROR = 1e-3
"""Root mean square, relative to the mean depth."""
SOLID_ALPHA = 0.05
"""Expected depth and its gradient are compared where alpha is above this: near 1/255 one pair decides them."""
LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


@dataclass(frozen=True)
class Side:
    """One of the two renderers."""

    name: str
    device: str
    backend: str
    """As ``rasterization`` takes it."""


@dataclass
class Outcome:
    """Images by name [C,H,W,D] and gradients by name, on the CPU in float64."""

    images: dict[str, Tensor]
    gradients: dict[str, Tensor]
    visible: Tensor
    """[C,N] whether the Gaussian was drawn."""


def parity_scene(count: int, side: int, seed: int = 0) -> RasterRequest:
    """Gaussians of 1.5 to 8 pixels before two cameras, some beyond the image's border, of every opacity.

    No needles and nothing below a pixel: gsplat takes the antialiasing factor from a float32 difference, which has no
    digits left for them, and cuts the 2DGS filter off below 2/3 of a pixel.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    focal = 0.9 * side
    depth = uniform(2.0, 6.0, count)
    reach = 1.15 * side / 2 / focal  # 15% beyond the border
    means = torch.stack([depth * uniform(-reach, reach, count), depth * uniform(-reach, reach, count), depth], dim=-1)
    pixels = torch.exp(uniform(math.log(1.5), math.log(min(8.0, side / 12)), count, 3))
    scales = pixels * (depth / focal)[:, None] * torch.tensor([1.0, 1.0, 0.5])
    colors = 0.2 * torch.randn(count, 16, 3, generator=generator)
    viewmats = torch.eye(4).repeat(2, 1, 1)
    angle = 0.05
    viewmats[1, :3, :3] = torch.tensor(
        [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    )
    viewmats[1, :3, 3] = torch.tensor([-0.2, 0.05, 0.1])
    K = torch.tensor([[focal, 0, 0.52 * side], [0, 0.95 * focal, 0.48 * side], [0, 0, 1]])
    return RasterRequest(
        means=means, quats=torch.randn(count, 4, generator=generator), scales=scales,
        opacities=uniform(0.02, 0.98, count), colors=colors, viewmats=viewmats, Ks=K.repeat(2, 1, 1), width=side,
        height=side, near_plane=0.01, far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=3,
        render_mode="RGB+ED", absgrad=True, rasterize_mode="classic",
    )  # fmt: skip


def with_limited_opacity(request: RasterRequest, method: str) -> RasterRequest:
    """The request with each opacity where three sigma hold all of its support."""
    return replace(request, opacities=request.opacities.clamp(max=STRICT_OPACITY[method]))


def render(request: RasterRequest, method: str, backend: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Images by name and the seam's information, for one of `METHODS`."""
    arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
    arguments["backend"] = backend
    arguments.pop("rasterize_mode")
    if method != "2dgs":
        mode = method.removeprefix("3dgs ")
        channels, alphas, info = rasterization(**arguments, rasterize_mode=mode)  # pyright: ignore[reportArgumentType]
        return {"color": channels[..., :3], "depth": channels[..., 3:], "alpha": alphas}, info
    from closeup_ns.rendering.rasterize_2d import rasterization_2dgs

    del arguments["absgrad"]
    channels, alphas, normals, _, distort, info = rasterization_2dgs(**arguments, distloss=True)
    images = {"color": channels[..., :3], "depth": channels[..., 3:], "alpha": alphas, "normals": normals}
    return {**images, "distortion": distort}, info  # pyright: ignore[reportReturnType]


def outcome(side: Side, request: RasterRequest, method: str, solid: Tensor | None) -> Outcome:
    """Render on one side and differentiate a fixed random linear loss. ``solid`` [C,H,W,1]: where depth counts.

    Without it, where this side's own alpha is above `SOLID_ALPHA`.
    """
    tensors = {name: getattr(request, name).to(side.device).clone().requires_grad_() for name in LEAVES}
    placed = replace(request, **tensors, Ks=request.Ks.to(side.device))
    images, info = render(placed, method, side.backend)
    screen = {"means2d": info["means2d"]}
    if "gradient_2dgs" in info:
        screen["gradient_2dgs"] = info["gradient_2dgs"]
    for tensor in screen.values():
        tensor.retain_grad()
    where = (images["alpha"].detach().cpu() > SOLID_ALPHA) if solid is None else solid
    generator = torch.Generator().manual_seed(7)
    losses = []
    for name, image in images.items():
        weights = torch.randn(image.shape, generator=generator)
        losses.append((image * (weights * where if name == "depth" else weights).to(side.device)).sum())
    torch.stack(losses).sum().backward()
    gradients = {name: tensor.grad for name, tensor in {**tensors, **screen}.items() if tensor.grad is not None}
    if getattr(info["means2d"], "absgrad", None) is not None:
        gradients["absgrad"] = info["means2d"].absgrad
    return Outcome(
        {name: image.detach().cpu().double() for name, image in images.items()},
        {name: gradient.detach().cpu().double() for name, gradient in gradients.items()},
        info["radii"].detach().cpu() > 0,
    )


def differences(ours: Outcome, theirs: Outcome, solid: Tensor) -> dict[str, float | int | str]:
    """What the table says of two outcomes; gradients as relative L2 norms, named grad_*."""
    figures: dict[str, float | int | str] = {}
    for name in ours.images.keys() & theirs.images.keys() - {"depth", "distortion"}:
        delta = (ours.images[name] - theirs.images[name]).abs()
        figures[f"{name}_psnr"] = psnr(ours.images[name], theirs.images[name])
        figures[f"{name}_max"], figures[f"{name}_mean"] = float(delta.max()), float(delta.mean())
    for name in ours.images.keys() & theirs.images.keys() & {"depth", "distortion"}:
        first, second = ours.images[name][solid], theirs.images[name][solid]
        figures[f"{name}_rms"] = float((first - second).square().mean().sqrt() / second.abs().mean().clamp(min=1e-12))
    for name, gradient in theirs.gradients.items():
        if name in ours.gradients:
            error = (ours.gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
            figures[f"grad_{name}"] = float(error)
    figures["only_ours_drawn"] = int((ours.visible & ~theirs.visible).sum())
    figures["only_theirs_drawn"] = int((theirs.visible & ~ours.visible).sum())
    lacking = sorted(theirs.gradients.keys() ^ ours.gradients.keys())
    if lacking:
        figures["one_side_only"] = ",".join(lacking)
    return dict(sorted(figures.items()))


def judge(figures: Figures) -> str:
    """What of the strict demands is not met; empty where all is."""
    wrong = []
    if all(value == 0 for name, value in figures.items() if name.startswith("grad_")):
        wrong.append("both sides have the same bits: these are not two renderers")
    for name, value in figures.items():
        if isinstance(value, str):
            wrong.append(f"{name}: {value}")
        elif name.endswith("_psnr") and not value >= LEAST_PSNR:
            wrong.append(f"{name} {value:.1f} dB, at least {LEAST_PSNR:.0f} demanded")
        elif name == "depth_rms" and not value <= MOST_DEPTH_ERROR:
            wrong.append(f"{name} {value:.1e}, at most {MOST_DEPTH_ERROR:.0e} demanded")
        elif name.startswith("grad_") and not value <= MOST_GRADIENT_ERROR:
            wrong.append(f"{name} {value:.1e}, at most {MOST_GRADIENT_ERROR:.0e} demanded")
    return "; ".join(wrong)


def compare(ours: Side, theirs: Side, request: RasterRequest, method: str) -> dict[str, float | int | str]:
    """The figures of one scene and method, on both sides."""
    theirs_outcome = outcome(theirs, request, method, None)
    solid = theirs_outcome.images["alpha"] > SOLID_ALPHA
    return differences(outcome(ours, request, method, solid), theirs_outcome, solid)


def strict_parity(ours: Side, theirs: Side, request: RasterRequest, method: str) -> Figures:
    """`compare` where the two must agree. CheckFailed where they do not."""
    figures = compare(ours, theirs, with_limited_opacity(request, method), method)
    wrong = judge(figures)
    if wrong:
        raise CheckFailed(wrong, figures)
    return figures


def general_parity(ours: Side, theirs: Side, request: RasterRequest, method: str) -> Figures:
    """`compare` at full opacity, and the share of the squared difference of colour that truncation explains."""
    figures = compare(ours, theirs, request, method)
    if float(figures["color_psnr"]) >= LEAST_PSNR:
        return figures  # nothing there to explain
    limited = compare(ours, theirs, with_limited_opacity(request, method), method)
    full, rest = (10 ** (-float(part["color_psnr"]) / 10) for part in (figures, limited))
    return {"by_truncation": 1 - rest / full, **figures}


def timed_passes(side: Side, request: RasterRequest, method: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A forward pass without a graph, and one with the gradients of all Gaussians, as callables."""
    names = LEAVES[:5]
    tensors = {name: getattr(request, name).to(side.device).clone().requires_grad_() for name in names}
    placed = replace(request, **tensors, viewmats=request.viewmats.to(side.device), Ks=request.Ks.to(side.device))

    def forward() -> None:
        with torch.no_grad():
            render(placed, method, side.backend)

    def both() -> None:
        for tensor in tensors.values():
            tensor.grad = None
        render(placed, method, side.backend)[0]["color"].sum().backward()

    return forward, both
