"""The same Gaussians through two backends: images, depth, alpha, and every gradient.

gsplat 1.4.0 cuts a Gaussian off at three sigma of its longest axis, tile by tile; ours counts every pixel where alpha
is at least 1/255. The two agree where that lies within three sigma: opacity * exp(-9/2) < 1/255, so an opacity below
0.353. There they must agree to float tolerance; what full opacities add to the difference is printed.

Still then, rounding may move a pair over the threshold of 1/255, so images are judged by their PSNR, not by their
largest difference, and depth only where there is something to see. Without a GPU the PyTorch
reference stands for gsplat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.rendering.gsplat_backend import gsplat_arguments
from closeup_ns.rendering.rasterize import rasterization
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.request import RasterRequest
from closeup_ns.views.psnr import psnr
from tests.gpu.marks import needs_gpu
from tests.rendering.scenes import LEAVES, run_oracle

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


@dataclass
class Outcome:
    """Images by name [C,H,W,D] and gradients by name, on the CPU in float64."""

    images: dict[str, Tensor]
    gradients: dict[str, Tensor]


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
        backgrounds=uniform(0, 1, 2, 3), render_mode="RGB+ED", absgrad=True, rasterize_mode="classic",
    )  # fmt: skip


def limited(request: RasterRequest, method: str) -> RasterRequest:
    """The request with each opacity where three sigma hold all of its support."""
    return replace(request, opacities=request.opacities.clamp(max=STRICT_OPACITY[method]))


def render(request: RasterRequest, method: str, backend: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Images by name and the seam's information, for one of `METHODS`."""
    arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
    arguments.update(backgrounds=request.backgrounds, backend=backend)
    arguments.pop("rasterize_mode")
    if method != "2dgs":
        mode: Any = method.removeprefix("3dgs ")
        channels, alphas, info = rasterization(**arguments, rasterize_mode=mode)
        return {"color": channels[..., :3], "depth": channels[..., 3:], "alpha": alphas}, info
    del arguments["eps2d"]
    channels, alphas, normals, _, distort, median, info = rasterization_2dgs(**arguments, distloss=True)
    images = {"color": channels[..., :3], "depth": channels[..., 3:], "alpha": alphas, "normals": normals}
    assert distort is not None and median is not None
    return {**images, "distortion": distort, "median": median}, info


def outcome(backend: str, request: RasterRequest, method: str, solid: Tensor | None = None) -> Outcome:
    """Render and differentiate a fixed random linear loss. ``solid`` [C,H,W,1]: where depth counts.

    Without it, where the render's own alpha is above `SOLID_ALPHA`.
    """
    device = "cuda" if backend == "gsplat" else "cpu"
    tensors = {name: getattr(request, name).to(device).clone().requires_grad_() for name in LEAVES}
    images, info = render(replace(request, **tensors, Ks=request.Ks.to(device)), method, backend)
    screen = {name: info[name] for name in ("means2d", "gradient_2dgs") if name in info}
    for tensor in screen.values():
        tensor.retain_grad()
    where = (images["alpha"].detach().cpu() > SOLID_ALPHA) if solid is None else solid
    generator = torch.Generator().manual_seed(7)
    losses = []
    for name, image in images.items():
        if name == "median":  # jumps from one Gaussian to the next: its gradient has no meaning to compare
            continue
        weights = torch.randn(image.shape, generator=generator)
        losses.append((image * (weights * where if name == "depth" else weights).to(device)).sum())
    torch.stack(losses).sum().backward()
    gradients = {name: tensor.grad for name, tensor in {**tensors, **screen}.items() if tensor.grad is not None}
    if getattr(info["means2d"], "absgrad", None) is not None:
        gradients["absgrad"] = info["means2d"].absgrad
    return Outcome(
        {name: image.detach().cpu().double() for name, image in images.items()},
        {name: gradient.detach().cpu().double() for name, gradient in gradients.items()},
    )


def differences(theirs: str, request: RasterRequest, method: str) -> dict[str, float]:
    """Our kernels against another backend: PSNR, depth as root mean square, gradients as relative L2 norms."""
    expected = outcome(theirs, request, method)
    solid = expected.images["alpha"] > SOLID_ALPHA
    ours = outcome("cpu", request, method, solid)
    assert ours.gradients.keys() == expected.gradients.keys()
    figures = {}
    for name, image in expected.images.items():
        if name in ("depth", "median", "distortion"):
            first, second = ours.images[name][solid], image[solid]
            error = (first - second).square().mean().sqrt() / second.abs().mean().clamp(min=1e-12)
            figures[f"{name}_rms"] = float(error)
        else:
            figures[f"{name}_psnr"] = psnr(ours.images[name], image)
    for name, gradient in expected.gradients.items():
        error = (ours.gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        figures[f"grad_{name}"] = float(error)
    return figures


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("theirs", ["torch", pytest.param("gsplat", marks=needs_gpu)])
def test_two_backends_draw_the_same(theirs: str, method: str) -> None:
    request = parity_scene(20_000, 512) if theirs == "gsplat" else parity_scene(200, 32)
    found = differences(theirs, limited(request, method), method)
    whole = differences(theirs, request, method)
    gone = 1 - 10 ** ((whole["color_psnr"] - found["color_psnr"]) / 10)
    print(f"{theirs}, {method}, within three sigma: {found}")
    print(f"at full opacity, of whose squared difference of colour truncation explains {gone:.0%}: {whole}")
    gradients = {name: error for name, error in found.items() if name.startswith("grad_")}
    known = {"means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds", "means2d"}
    assert {f"grad_{name}" for name in known} <= gradients.keys() and any(gradients.values())
    assert max(gradients.values()) <= MOST_GRADIENT_ERROR
    assert min(value for name, value in found.items() if name.endswith("_psnr")) >= LEAST_PSNR
    assert found["depth_rms"] <= MOST_DEPTH_ERROR


@pytest.mark.parametrize("method", METHODS[:2])
def test_within_three_sigma_every_pixel_of_the_support_lies(method: str) -> None:
    """The premise, by brute force over the pixels that a Gaussian really reaches."""
    request = limited(parity_scene(300, 48), method)
    info = run_oracle(replace(request, absgrad=False, backgrounds=None)).info
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    means, conics, opacities = (info[name][0].detach() for name in ("means2d", "conics", "opacities"))
    dx, dy = means[:, 0, None, None] - x, means[:, 1, None, None] - y
    a, b, c = conics.T[..., None, None]
    alpha = opacities[:, None, None] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
    reached = (alpha >= 1 / 255) & (info["radii"][0] > 0)[:, None, None]
    assert reached.sum() > 1000
    radii = info["radii"][0][:, None, None]
    assert ((dx.abs() <= radii) & (dy.abs() <= radii))[reached].all()
