"""The compiled 2DGS rasteriser against the float64 oracle: images, every gradient, support, threads, odd cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.cpu.surfels import rasterize_cpu_2d
from closeup_ns.rendering.kernels import Kernels
from closeup_ns.rendering.reference.surfels import rasterize_reference_2d
from closeup_ns.rendering.request import SurfelImages, SurfelRequest

from .scenes_2d import OUTPUTS, in_dtype, make_surfel_request, one_disc, quaternion, random_loss, surface_distances

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats")
Outcome = dict[str, Tensor]


def outcome(request: SurfelRequest, images: SurfelImages) -> Outcome:
    """Images, the gradients of a fixed random loss of them, and which surfels were seen."""
    info = images.info
    if info["means2d"].requires_grad:
        info["means2d"].retain_grad()
        random_loss(images).backward()
        info["means2d.grad"], info["densify"] = info["means2d"].grad, info["gradient_2dgs"].grad
    found = {name: getattr(images, name) for name in OUTPUTS}
    found |= {f"d_{name}": getattr(request, name).grad for name in LEAVES}
    found |= {name: info.get(name) for name in ("means2d.grad", "densify")}
    return {"seen": info["radii"] > 0, **{name: value.detach() for name, value in found.items() if value is not None}}


def ours(request: SurfelRequest, kernels: Kernels | None = None, leaves: tuple[str, ...] = LEAVES) -> Outcome:
    request = in_dtype(request, torch.float32, leaves)
    return outcome(request, rasterize_cpu_2d(request, kernels))


def oracle(request: SurfelRequest) -> Outcome:
    request = in_dtype(request, torch.float64, LEAVES)
    return outcome(request, rasterize_reference_2d(request))


def assert_agree(actual: Outcome, expected: Outcome, tolerance: float = 1e-4, **looser: float) -> None:
    """Everything agrees in relative L2 norm, and the same surfels are seen."""
    assert torch.equal(actual["seen"], expected["seen"])
    for name in (actual.keys() | expected.keys()) - {"seen"}:
        one = actual.get(name, torch.zeros(()))
        other = expected.get(name, torch.zeros(())).double()
        assert torch.isfinite(one).all(), f"{name} is not finite"
        error = (one.double() - other).norm() / (other.norm() + 1e-9)
        assert error <= looser.get(name, tolerance), f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize(("render_mode", "distloss"), [("RGB", False), ("RGB+ED", False), ("RGB+ED", True)])
def test_images_and_all_gradients(render_mode: Any, distloss: bool, generator: torch.Generator) -> None:
    request = make_surfel_request(250, generator, cameras=2, render_mode=render_mode, distloss=distloss)
    actual = ours(request)
    # A disc that is nearly edge-on turns by much where its outline moves by little: its quaternion's share is rounding.
    assert_agree(actual, oracle(request), d_quats=5e-4)
    assert ("distort" in actual) == distloss
    assert {"densify", "means2d.grad", "d_viewmats"} <= actual.keys()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), count=st.integers(1, 120), width=st.integers(1, 70), height=st.integers(1, 40),
    size=st.floats(0.01, 4.0), opacity=st.floats(-2.0, 8.0), distance=st.floats(-1.0, 3.0),
)  # fmt: skip
def test_random_scenes(seed: int, count: int, width: int, height: int, size: float, opacity: float,
                       distance: float) -> None:  # fmt: skip
    """Also from inside the ball: surfels behind the camera, right before it, crossing the borders and near-edge-on."""
    generator = torch.Generator().manual_seed(seed)
    request = make_surfel_request(count, generator, width=width, height=height, near_plane=0.05)
    request.viewmats[:, 2, 3] = distance
    request.scales.mul_(size)
    opacities = torch.sigmoid(torch.randn(count, generator=generator) + opacity)
    request = replace(request, opacities=opacities)
    actual, expected = ours(request), oracle(request)
    # A disc whose short axis is a hundredth of a pixel and less has gradients as large as its rounding is coarse.
    gradients = {name: 5e-3 for name in expected if name not in OUTPUTS}
    assert_agree(actual, expected, 5e-4, **gradients)


def alone(request: SurfelRequest, surfel: int) -> SurfelRequest:
    """The request with one of its surfels."""
    names = ("means", "quats", "scales", "opacities", "colors")
    return replace(request, **{name: getattr(request, name)[surfel : surfel + 1] for name in names})


def every_pixel(request: SurfelRequest) -> tuple[Tensor, Tensor]:
    """Alpha [N,H,W] of each surfel at every pixel, wherever it lies, in float64; and the shorter semi-axes [N]."""
    info = rasterize_reference_2d(in_dtype(request, torch.float64)).info
    M, seen = info["ray_transforms"][0], info["radii"][0] > 0
    ys, xs = torch.meshgrid(torch.arange(request.height), torch.arange(request.width), indexing="ij")
    pixels = torch.stack([xs, ys], dim=-1)[None] + 0.5
    surface = surface_distances(M[:, None, None], pixels)
    filtered = 2 * (pixels - info["means2d"][0][:, None, None]).square().sum(-1)
    alpha = request.opacities.double()[:, None, None] * torch.exp(-0.5 * torch.minimum(surface, filtered))
    P = (M[:, :2, :2] - M[:, :2, 2:] / M[:, 2:, 2:] * M[:, 2:, :2]) / M[:, 2:, 2:]
    return alpha.clamp(max=0.999) * seen[:, None, None], torch.linalg.svdvals(P)[:, 1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), width=st.integers(1, 130), height=st.integers(1, 75), size=st.floats(0.01, 8.0),
    distance=st.floats(-1.0, 3.0),
)  # fmt: skip
def test_lists_miss_no_pixel(seed: int, width: int, height: int, size: float, distance: float) -> None:
    """Each surfel by itself is drawn exactly where its alpha is 1/255 and more, give or take rounding."""
    generator = torch.Generator().manual_seed(seed)
    request = make_surfel_request(25, generator, width=width, height=height, near_plane=0.02, render_mode="RGB",
                                  distloss=False)  # fmt: skip
    request.viewmats[:, 2, 3] = distance
    request.scales.mul_(size)
    alphas, thickness = every_pixel(request)
    for surfel in torch.where(thickness > 2e-2)[0].tolist():
        drawn = ours(alone(request, surfel), leaves=())["alphas"][0, ..., 0]
        slack = 1e-2  # relative, of alpha at the rim
        assert (drawn[alphas[surfel] >= (1 + slack) / 255] > 0).all()
        assert not drawn[alphas[surfel] < (1 - slack) / 255].any()


def test_a_disc_past_the_cameras_plane_reaches_every_tile() -> None:
    """Its support is not bounded, and the image has more tiles than a short support would list."""
    request = one_disc((0.0, 0.3, 1.0), quaternion((1.0, 0.0, 0.0), 85.0), (0.5, 0.6), 0.99, width=3000, height=40)
    alphas, _ = every_pixel(request)
    drawn = ours(request, leaves=())["alphas"][0, ..., 0]
    expected = torch.where(alphas[0] >= 1 / 255, alphas[0], 0.0)
    assert (expected > 0).sum() > 1000
    torch.testing.assert_close(drawn.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("degrees", [89.0, 89.99, 90.0])
def test_edge_on_discs_draw_their_filter_with_finite_gradients(degrees: float) -> None:
    request = one_disc((0.0, 0.0, 2.0), quaternion((0.0, 1.0, 0.0), degrees), (0.2, 0.1), 0.8)
    request = replace(request, scales=torch.tensor([[0.2, 0.1, 1.0]]))
    actual, expected = ours(request), oracle(request)
    assert all(torch.isfinite(value).all() for value in actual.values()) and actual["alphas"].max() > 0.5
    sided = degrees < 90.0  # beyond, rounding decides which way the normal points
    for name in OUTPUTS if sided else set(OUTPUTS) - {"normals"}:
        torch.testing.assert_close(actual[name].double(), expected[name], atol=2e-4, rtol=1e-3)


def test_two_channels_and_no_gradients(generator: torch.Generator) -> None:
    colors = torch.rand(60, 2, generator=generator)
    request = make_surfel_request(60, generator, colors=colors, sh_degree=None)
    with_gradients = ours(request)
    # Few discs, one of them nearly edge-on: its rounding is a part of what little they sum up to.
    assert_agree(with_gradients, oracle(request), d_quats=5e-4, d_means=5e-4, d_viewmats=1e-3)
    for name, value in ours(request, leaves=()).items():
        assert torch.equal(value, with_gradients[name]), name
