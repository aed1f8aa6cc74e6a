"""Random scenes, ordinary and extreme, against the float64 reference: images, alphas and all gradients.

Two things stand between float32 kernels and a float64 oracle, and neither is an error of the kernels:

- Decisions. A Gaussian is drawn where alpha >= 1/255, counts until the transmittance falls to 1e-4, and is clamped at
  0.999. Where the oracle is within rounding of such a limit, the two may decide differently, and a whole term comes or
  goes. The oracle's own decisions are known, so those pixels are left out of the loss and of the comparison
  (`certain_pixels`), and Gaussians that stand at the limit of being culled are taken out of the scene (`settled`).
- Conditioning. The projection of a needle a thousand pixels long moves by pixels when its quaternion moves by a
  rounding. No float32 program can do better than to answer exactly for inputs that differ by a few roundings from those
  given. How much that is, the oracle says itself: it is evaluated at inputs jittered by JITTER, and the kernels
  may differ by SLACK times the largest change seen, beside the tolerance TOLERANCE for sums of float32 terms.

- Needles. Between blend and projection the gradient is one of the 2D covariance, whose elements are as large as the
  short axis makes them; what they say of the long one is their difference. For an ellipse of aspect A the gradients,
  not the images, may therefore err by A^2 roundings (`needle_error`): a limit of the kernels, known and held here.

- Opaque layers. What lies behind a Gaussian is the whole less what is before it, and the gradient of its alpha divides
  that by 1 - alpha: a rounding of the whole, divided likewise (`opaque_error`), is a limit of the kernels, too.

`make fuzz` runs more scenes with fresh seeds; without it, the scenes are the same in each run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.reference.gaussians import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, rasterize_reference
from closeup_ns.rendering.request import RasterRequest

from .scenes import LEAVES, Render, on_kernels

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])

EXAMPLES = int(os.environ.get("CLOSEUP_FUZZ", "0"))
"""Scenes per test with fresh seeds; 0: few scenes, the same each time."""
JITTER = 2.0**-22
"""Relative; four float32 roundings: the projection of a Gaussian is a chain of about ten operations."""
SLACK = 8.0
"""Two jittered evaluations see the direction that matters only in part."""
TOLERANCE = 1e-4
"""Relative L2 error that float32 sums and a polynomial exp2 (2e-7) may leave where nothing is ill-conditioned."""
FLOOR = 1e-6
"""Of the loss's norm: terms of order one that cancel in truth (antialiasing with eps2d 0) leave their roundings."""
FAINT, DEEPEST = 0.05, 10.0
"""Expected depths of pixels with less alpha than this are not compared; no Gaussian lies deeper."""
MARGIN = 1e-4
"""Relative distance of alpha or transmittance to a limit, below which a decision is not certain even without jitter."""
FUZZ = settings(
    max_examples=EXAMPLES or 40, derandomize=not EXAMPLES, deadline=None, database=None, print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip

# A dot of a thirtieth of a pixel: sums over whole pixels, brought to its centre afterwards, lost three digits.
DOT = dict(
    seed=1, count=13, width=1, height=18, size=-3.0, needle=0.0, opacity="mixed", eps2d=0.001, radius_clip=0.0,
    distance=5.75, coincident=True, render_mode="RGB", antialiased=False, degree=None, cameras=2,
)  # fmt: skip

# Opaque layers at one depth: of what is behind the first, three digits are left.
OPAQUE = dict(
    seed=1630, count=16, width=1, height=2, size=3.0, needle=0.0, opacity="opaque", eps2d=0.0, radius_clip=0.0,
    distance=1.0, coincident=True, render_mode="RGB", antialiased=False, degree=None, cameras=1,
)  # fmt: skip

scenes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "count": st.integers(1, 40),
        "width": st.integers(1, 40),
        "height": st.integers(1, 40),
        "size": st.floats(-6, 3),  # powers of ten
        "needle": st.floats(-6, 0),  # how much thinner the other axes are
        "opacity": st.sampled_from(["mixed", "faint", "opaque", "one"]),
        "eps2d": st.sampled_from([0.0, 1e-3, 0.1, 0.3, 5.0]),
        "radius_clip": st.sampled_from([0.0, 0.0, 3.0, 30.0]),
        "distance": st.floats(-1, 6),
        "coincident": st.booleans(),
        "render_mode": st.sampled_from(["RGB", "RGB+ED"]),
        "antialiased": st.booleans(),
        "degree": st.sampled_from([None, 0, 1, 2, 3]),
        "cameras": st.integers(1, 2),
    }
)


def build_scene(s: dict[str, Any]) -> RasterRequest:
    """The request of a drawn description, in float32."""
    generator = torch.Generator().manual_seed(s["seed"])

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    count, cameras, degree = s["count"], s["cameras"], s["degree"]
    means = normal(count, 3)
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    viewmats[:, :2, 3] = 0.3 * normal(cameras, 2)
    viewmats[:, 2, 3] = s["distance"]
    if s["coincident"]:  # the same z to the last bit in every camera: the index decides who is in front
        means[:, 2] = torch.round(means[:, 2])
    else:
        angle = 0.3 * normal(cameras)
        viewmats[:, 0, 0], viewmats[:, 2, 2] = torch.cos(angle), torch.cos(angle)
        viewmats[:, 0, 2], viewmats[:, 2, 0] = torch.sin(angle), -torch.sin(angle)
    scales = 10.0 ** s["size"] * torch.exp(0.5 * normal(count, 3))
    scales[:, 1:] *= 10.0 ** s["needle"]
    opacities = {
        "mixed": torch.sigmoid(2 * normal(count)), "faint": 0.005 + 0.002 * torch.rand(count, generator=generator),
        "opaque": 0.98 + 0.02 * torch.rand(count, generator=generator), "one": torch.ones(count),
    }[s["opacity"]]  # fmt: skip
    colors = 0.4 * normal(count, 16, 3) if degree is not None else torch.rand(count, 3, generator=generator)
    width, height = s["width"], s["height"]
    K = torch.tensor([[0.9 * width + 5, 0, 0.52 * width], [0, 0.8 * height + 5, 0.47 * height], [0, 0, 1]])
    return RasterRequest(
        means=means, quats=normal(count, 4), scales=scales, opacities=opacities, colors=colors, viewmats=viewmats,
        Ks=K.repeat(cameras, 1, 1), width=width, height=height, near_plane=0.05, far_plane=1e10,
        radius_clip=s["radius_clip"], eps2d=s["eps2d"], sh_degree=degree, render_mode=s["render_mode"], absgrad=True,
        rasterize_mode="antialiased" if s["antialiased"] else "classic",
    )  # fmt: skip


def jittered(request: RasterRequest, seed: int) -> RasterRequest:
    """The request in float64 with every number of the Gaussians and cameras moved by about JITTER."""
    generator = torch.Generator().manual_seed(seed)
    moved = {}
    for name in ("means", "quats", "scales", "opacities"):
        value = getattr(request, name).double()
        # A centre is moved by the size of its vector: a small coordinate comes out of large ones in camera space.
        size = value.norm(dim=-1, keepdim=True) if name in ("means", "quats") else value.abs()
        moved[name] = value + JITTER * size * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    # Equal depths stay equal: their order is by index, and no rounding changes it.
    levels, level = torch.unique(request.means[:, 2].double(), return_inverse=True)
    noise = torch.randn(levels.shape, generator=generator, dtype=torch.float64)
    moved["means"][:, 2] = (levels + JITTER * (levels.abs() + 1) * noise)[level]
    moved["viewmats"] = request.viewmats.double().clone()
    noise = torch.randn(len(request.viewmats), 3, generator=generator, dtype=torch.float64)
    moved["viewmats"][:, :3, 3] *= 1 + JITTER * noise
    moved["scales"] = moved["scales"].abs()
    moved["opacities"] = moved["opacities"].clamp(max=1.0)
    return in_double(replace(request, **moved))


def in_double(request: RasterRequest) -> RasterRequest:
    return replace(request, **{name: getattr(request, name).double() for name in (*LEAVES, "Ks")})


def alphas_and_order(request: RasterRequest) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Alphas [C,P,N], before any limit, and the draw order [C,N], both of the float64 oracle's projection."""
    _, _, info = rasterize_reference(replace(request, absgrad=False))
    ys, xs = torch.meshgrid(torch.arange(request.height), torch.arange(request.width), indexing="ij")
    pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 1, 2) + 0.5
    dx, dy = (info["means2d"][:, None] - pixels).unbind(-1)
    a, b, c = info["conics"][:, None].unbind(-1)
    alpha = info["opacities"][:, None] * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy).clamp(min=0.0))
    alpha = torch.where(info["radii"][:, None] > 0, alpha, 0.0)
    return alpha, torch.argsort(info["depths"], dim=-1, stable=True), info


def certain_pixels(exact: RasterRequest, others: list[RasterRequest]) -> Tensor:
    """Pixels [C,H,W,1] at which no decision of the oracle is within rounding of its limit."""
    alpha, order, _ = alphas_and_order(exact)
    moves = [alphas_and_order(other)[0] for other in others]
    spread = torch.stack([(move - alpha).abs() for move in moves]).amax(dim=0)
    margin = MARGIN * alpha + SLACK * spread
    doubtful = ((alpha - MIN_ALPHA).abs() <= margin) | ((alpha - MAX_ALPHA).abs() <= margin)

    def transmittances(values: Tensor) -> Tensor:
        shown = torch.where(values >= MIN_ALPHA, values.clamp(max=MAX_ALPHA), 0.0)
        return torch.cumprod(1 - torch.gather(shown, 2, order[:, None].expand_as(shown)), dim=2)

    after = transmittances(alpha)
    moved = torch.stack([(transmittances(move) - after).abs() for move in moves]).amax(dim=0)
    doubtful |= (after - MIN_TRANSMITTANCE).abs() <= 10 * MARGIN * MIN_TRANSMITTANCE + SLACK * moved
    return ~doubtful.any(dim=2).reshape(len(alpha), exact.height, exact.width, 1)


def settled(request: RasterRequest) -> Tensor:
    """Which Gaussians [N] every jittered oracle culls alike, orders alike and clamps alike, in every camera."""
    exact = alphas_and_order(in_double(request))[2]
    good = torch.ones(len(request.means), dtype=torch.bool)
    for seed in range(4):
        info = alphas_and_order(jittered(request, 1000 + seed))[2]
        same = (info["radii"] > 0) == (exact["radii"] > 0)
        good &= same.all(dim=0)
    depths = exact["depths"]
    for camera in range(len(depths)):  # who is in front must not hang on a rounding, unless the depths are equal bits
        gap = (depths[camera][:, None] - depths[camera]).abs()
        close = (gap < 1e-5 * (1 + depths[camera].abs())) & (gap > 0)
        good &= ~torch.triu(close, diagonal=1).any(dim=0)
    return good & ~_at_limits(request, exact)


def _at_limits(request: RasterRequest, info: dict[str, Any]) -> Tensor:
    """Gaussians [N] whose culling or frustum clamp is decided within a thousandth."""
    near = (info["depths"] - request.near_plane).abs() < 1e-3
    faint = (info["opacities"] / MIN_ALPHA - 1).abs() < 1e-3
    slopes = (
        request.means.double() @ request.viewmats.double()[:, :3, :3].transpose(1, 2) + request.viewmats[:, None, :3, 3]
    )
    slopes = slopes[..., :2] / slopes[..., 2:]
    edge = torch.zeros_like(near)
    for axis, size in ((0, request.width), (1, request.height)):
        focal, center = request.Ks[:, axis, axis, None].double(), request.Ks[:, axis, 2, None].double()
        margin = 0.3 * 0.5 * size / focal
        for limit in (-(center / focal + margin), (size - center) / focal + margin):
            edge |= (slopes[..., axis] - limit).abs() < 1e-3 * (1 + limit.abs())
    clipped = torch.zeros_like(near)
    if request.radius_clip:
        clipped = (info["radii"] - request.radius_clip).abs() < 2
    return (near | faint | edge | clipped).any(dim=0)


def needle_error(exact: RasterRequest) -> float:
    """The relative error of a gradient that the longest ellipse on the screen explains."""
    info = alphas_and_order(exact)[2]
    a, b, c = info["conics"][info["radii"] > 0].unbind(-1)
    if not len(a):
        return 0.0
    spread = torch.sqrt((0.5 * (a - c)) ** 2 + b * b)
    largest = 0.5 * (a + c) + spread
    smallest = (a * c - b * b).clamp(min=1e-300) / largest
    return float((largest / smallest).max()) * JITTER


def evaluate(render: Render, request: RasterRequest, weights: tuple[Tensor, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """Masked image and alpha, and the gradients of their weighted sum."""
    leaves = {name: getattr(request, name).detach().clone().requires_grad_() for name in LEAVES}
    image, alpha, info = render(replace(request, **leaves))
    image, alpha = torch.where(mask, image, 0.0), torch.where(mask, alpha, 0.0)
    info["means2d"].retain_grad()
    ((image * weights[0].to(image)).sum() + (alpha * weights[1].to(alpha)).sum()).backward()
    found = {"image": image.detach(), "alpha": alpha.detach(), "absgrad": info["means2d"].absgrad}
    for name, leaf in leaves.items():
        found[name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return {name: value.double() for name, value in found.items()}


def keep(request: RasterRequest, chosen: Tensor) -> RasterRequest:
    return replace(
        request,
        **{name: getattr(request, name)[chosen] for name in ("means", "quats", "scales", "opacities", "colors")},
    )


def opaque_error(exact: RasterRequest) -> float:
    """The error of a gradient, of the loss's norm, that the most opaque Gaussian below the limit explains."""
    alpha = alphas_and_order(exact)[0]
    return 2.0**-24 / (1 - float(alpha[alpha < MAX_ALPHA].amax())) if bool((alpha < MAX_ALPHA).any()) else 0.0


@FUZZ
@given(scenes)
@example(DOT)
@example(OPAQUE)
def test_random_scenes_against_the_reference(description: dict[str, Any]) -> None:
    request = build_scene(description)
    request = keep(request, settled(request))
    exact, others = in_double(request), [jittered(request, seed) for seed in range(3)]
    mask = certain_pixels(exact, others)
    if request.has_depth:
        alpha = rasterize_reference(exact)[1]
        mask &= (alpha == 0) | (alpha >= FAINT)
    shape = (*mask.shape[:3], request.channels)

    def loss(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator), torch.randn(mask.shape, generator=generator)

    weights = loss(7)
    ours = evaluate(on_kernels(), request, weights, mask)
    oracle = evaluate(rasterize_reference, exact, weights, mask)
    jumps = [evaluate(rasterize_reference, other, weights, mask) for other in others]
    # On a few pixels one random loss may happen to cancel; its rounding errors do not.
    usual = [oracle, *(evaluate(rasterize_reference, exact, loss(seed), mask) for seed in range(3))]
    needles, opaque = needle_error(exact), opaque_error(exact)
    floor = FLOOR * weights[0].norm().item()
    if request.has_depth:  # alpha is 1 minus a float32 transmittance, and its square divides the gradient
        floor += 2.0**-24 * DEEPEST / FAINT**2 * weights[0].norm().item()
    for name, expected in oracle.items():
        assert torch.isfinite(ours[name]).all(), f"{name} is not finite"
        change = max((jump[name] - expected).norm().item() for jump in jumps)
        relative, least = TOLERANCE, floor
        if name not in ("image", "alpha"):
            relative, least = TOLERANCE + needles, floor + opaque * weights[0].norm().item()
        allowed = relative * max(one[name].norm().item() for one in usual) + SLACK * change + least
        error = (ours[name] - expected).norm().item()
        assert error <= allowed, f"{name}: error {error:.3e} of {expected.norm():.3e}, allowed {allowed:.3e}"
