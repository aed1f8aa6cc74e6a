"""The compiled projection of surfels against float64 autograd of its definition, and brute force.

Threads and instruction sets: test_both_kinds.py. gsplat's own projection: test_reference_2d.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.cpu.projection import SURFELS, Project, camera_floats
from closeup_ns.rendering.kernels import load_kernels
from closeup_ns.rendering.reference.gaussians import rotation_matrices
from closeup_ns.rendering.request import RasterRequest

from .scenes import make_request
from .scenes_2d import surface_distances

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])

MIN_ALPHA = 1 / 255
DIFFERENTIABLE = ("centers", "covariances", "perspective", "means2d", "normals", "depths", "opacities")
OUTPUTS = (*DIFFERENTIABLE, "radii", "ray_transforms", "whitening")
LEAVES = ("means", "quats", "scales", "opacities", "viewmats")


def project(request: RasterRequest) -> dict[str, Tensor]:
    """The kernels' outputs by name."""
    leaves = [getattr(request, name) for name in LEAVES]
    outputs = Project.apply(*leaves, camera_floats(request), SURFELS, load_kernels())
    return dict(zip(OUTPUTS, outputs))  # pyright: ignore[reportArgumentType]


def define(request: RasterRequest) -> dict[str, Tensor]:
    """The outputs by definition, in float64 and for every surfel, culled or not; and ``tilt2``, |q|^2."""
    means, quats, scales, opacities, viewmats = (getattr(request, name).double() for name in LEAVES)
    K = request.Ks.double()[:, None]
    axes = viewmats[:, None, :3, :3] @ rotation_matrices(quats)
    tangents = axes[..., :2] * scales[:, None, :2]
    mean = torch.einsum("cij,nj->cni", viewmats[:, :3, :3], means) + viewmats[:, None, :3, 3]
    M = K @ torch.cat([tangents, mean[..., None]], dim=-1)
    center, depth = M[..., :2, 2] / M[..., 2:, 2], mean[..., 2]
    q = M[..., 2, :2] / depth[..., None]
    # Quotient rule on pixel(s) = M (s, 1), at s = 0.
    P = (M[..., :2, :2] - center[..., None] * M[..., 2:, :2]) / depth[..., None, None]
    tilt2 = q.square().sum(-1)
    covariance = P @ P.mT
    normal = axes[..., 2]
    # What is seen edge-on, as surfels/projection.h has it, draws its filter only and has no perspective.
    long_axis = P.square().sum(dim=(-1, -2)).sqrt()
    faces = torch.linalg.det(P).abs() > long_axis * (1e-6 * long_axis).clamp(min=1e-4)
    return {
        "centers": center,
        "covariances": torch.stack([covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]], dim=-1),
        "perspective": torch.where(faces[..., None], -torch.linalg.solve_ex(P.mT, q)[0], 0.0),
        "means2d": center - (P @ q[..., None])[..., 0] / (1 - tilt2)[..., None],
        "normals": normal * torch.where((normal * mean).sum(-1, keepdim=True) < 0, 1.0, -1.0),
        "depths": depth,
        "opacities": opacities.expand(depth.shape),
        "ray_transforms": M,
        "tilt2": tilt2,
        "P": P,
    }


def condition(P: Tensor) -> Tensor:
    """How many times longer than thick each projected disc is: by so much P's rounding grows on its way to P^-1."""
    return P.square().sum(dim=(-1, -2)) / torch.linalg.det(P).abs()


def assert_close(ours: Tensor, oracle: Tensor, scale: Tensor, tolerance: float, what: str) -> None:
    """Each entry within ``tolerance`` times its surfel's scale."""
    worst = ((ours - oracle).abs() / scale).nan_to_num(nan=math.inf).max() if ours.numel() else torch.tensor(0.0)
    assert worst <= tolerance, f"{what}: off by {worst:.3g} of its scale"


def assert_outputs(request: RasterRequest, ours: dict[str, Tensor]) -> None:
    oracle, visible = define(request), ours["radii"] > 0
    stretch = condition(oracle["P"])[visible][:, None].clamp(min=1.0)
    close = 1 / (1 - oracle["tilt2"][visible][:, None])
    for name in (*DIFFERENTIABLE, "ray_transforms"):
        assert (ours[name][~visible] == 0).all(), name
        wanted = oracle[name][visible].flatten(1) if oracle[name].dim() > 2 else oracle[name][visible][:, None]
        scale = wanted.abs().amax(dim=-1, keepdim=True) + 1e-6
        scale = {"perspective": scale * stretch, "means2d": (scale + request.width) * close}.get(name, scale)
        scale = scale + request.width if name == "centers" else scale
        assert_close(ours[name][visible].reshape(wanted.shape), wanted, scale, 2e-5, name)
    assert_whitening(ours, visible, stretch)


def assert_whitening(ours: dict[str, Tensor], visible: Tensor, stretch: Tensor) -> None:
    """L^T cov L = 1 for the whitening's rows, in the kernels' own numbers."""
    l11, l21, l22 = ours["whitening"][visible].double().unbind(-1)
    xx, xy, yy = ours["covariances"][visible].double().unbind(-1)
    uu, uv, vv = l11**2 * xx + 2 * l11 * l21 * xy + l21**2 * yy, l22 * (l11 * xy + l21 * yy), l22**2 * yy
    one = (l22 > 0).double()  # all zero where the surfel is seen edge-on
    identity = torch.stack([uu - one, uv, vv - one], dim=-1)
    assert_close(identity, torch.zeros_like(identity), stretch**2, 2e-6, "whitening")


def gradients(request: RasterRequest, cotangents: dict[str, Tensor], oracle: bool) -> dict[str, Tensor]:
    """The gradients of the sum of outputs times cotangents, by the kernels or by float64 autograd of the definition."""
    dtype = torch.float64 if oracle else torch.float32
    leaves = {name: getattr(request, name).detach().to(dtype).clone().requires_grad_() for name in LEAVES}
    outputs = (define if oracle else project)(replace(request, **leaves))
    terms = [(outputs[name] * cotangent.to(dtype)).nan_to_num().sum() for name, cotangent in cotangents.items()]
    torch.stack(terms).sum().backward()
    return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}


def gradient_scales(request: RasterRequest, exact: dict[str, Tensor], growth: Tensor) -> dict[str, Tensor]:
    """What a leaf's gradient may be measured by: the surfel's steepest slope, over all leaves, per relative change.

    So a gradient that is zero because large terms cancel may be off by those terms' rounding.
    """
    sizes = {"means": 1 + request.means.double().norm(dim=-1), "quats": request.quats.double().norm(dim=-1)}
    sizes["scales"] = request.scales.double()[:, :2].amax(dim=-1)
    slopes = [exact[leaf].norm(dim=-1) * size for leaf, size in sizes.items()]
    steepest = torch.stack(slopes).amax(dim=0) * growth + 1e-9
    scales = {leaf: (steepest / size)[:, None] for leaf, size in sizes.items()}
    return scales | {"viewmats": (steepest.sum() * (1 + request.viewmats[:, 2, 3].abs().max())).reshape(1, 1)}


def assert_gradients(request: RasterRequest, tolerance: float = 5e-5) -> None:
    """Of each output by itself, with random weights."""
    ours, oracle = project(request), define(request)
    visible, generator = ours["radii"] > 0, torch.Generator().manual_seed(3)
    # Both the inverse of P and, for means2d, 1 / (1 - |q|^2) multiply the rounding.
    growth = torch.where(visible, condition(oracle["P"]).clamp(min=1) / (1 - oracle["tilt2"]), 1.0).amax(dim=0)
    for name in DIFFERENTIABLE:
        weights = torch.randn(ours[name].shape, generator=generator, dtype=torch.float64).to(torch.float32)
        mask = visible.reshape(*visible.shape, *[1] * (weights.dim() - 2))
        cotangents = {name: torch.where(mask, weights, 0.0)}
        mine, exact = gradients(request, {name: weights}, False), gradients(request, cotangents, True)
        for leaf, scale in gradient_scales(request, exact, growth).items():
            assert_close(mine[leaf].flatten(1), exact[leaf].flatten(1), scale, tolerance, f"d {name} / d {leaf}")
        torch.testing.assert_close(mine["opacities"].double(), exact["opacities"])
        assert (mine["scales"][:, 2] == 0).all(), "the third scale is no input"
        unseen = ~visible.any(dim=0)
        assert all((mine[leaf][unseen] == 0).all() for leaf in LEAVES[:4]), "culled surfels have no gradient"


def surfels(count: int, seed: int, **changes: object) -> RasterRequest:
    return make_request(count, torch.Generator().manual_seed(seed), **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 333])
def test_outputs_and_gradients(count: int) -> None:
    request = surfels(count, count, cameras=2)
    ours = project(request)
    assert count < 300 or (ours["radii"] > 0).sum() > 100
    assert_outputs(request, ours)
    if count:
        assert_gradients(request)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), count=st.integers(1, 60), size=st.floats(0.003, 2.0), distance=st.floats(-1.0, 4.0),
    flatness=st.floats(1e-3, 1.0), length=st.floats(1e-6, 1e6), near=st.floats(0.0, 1.0),
)  # fmt: skip
def test_random_scenes(seed: int, count: int, size: float, distance: float, flatness: float, length: float,
                       near: float) -> None:  # fmt: skip
    request = surfels(count, seed, near_plane=near, far_plane=4.5)
    generator = torch.Generator().manual_seed(seed)
    viewmats = request.viewmats.clone()
    viewmats[:, :3, :3] = rotation_matrices(torch.randn(1, 4, generator=generator) * torch.tensor([1, 0.3, 0.3, 0.3]))
    viewmats[:, 2, 3] = distance
    scales = request.scales * size * torch.tensor([1.0, flatness, 1.0])
    request = replace(request, viewmats=viewmats, scales=scales, quats=request.quats * length)
    ours = project(request)
    visible = ours["radii"] > 0
    assert ((ours["depths"][visible] >= near) & (ours["depths"][visible] <= 4.5)).all()
    assert_outputs(request, ours)
    if (
        1e-3 < length < 1e3
    ):  # elsewhere the quaternions' gradients are too small or too large for the floor of the scale
        assert_gradients(request)


def single(mean: list[float], normal_angle: float, scale: float = 0.3, opacity: float = 0.9,
           **changes: object) -> RasterRequest:  # fmt: skip
    """One round surfel, its normal turned about the x axis, away from the viewing direction; the identity camera."""
    request = surfels(1, 0, **changes)
    quat = torch.tensor([[math.cos(normal_angle / 2), math.sin(normal_angle / 2), 0.0, 0.0]])
    return replace(request, means=torch.tensor([mean]), quats=quat, scales=torch.full((1, 3), scale),
                   opacities=torch.tensor([opacity]), viewmats=torch.eye(4)[None])  # fmt: skip


@pytest.mark.parametrize("tilt", [0.1, 1e-2, 1e-3, 3e-4])
def test_nearly_edge_on(tilt: float) -> None:
    request = single([0.02, 0.0, 3.0], math.pi / 2 + tilt)
    ours = project(request)
    assert ours["radii"].item() > 0 and (ours["whitening"][..., 0] > 0).all()
    assert_outputs(request, ours)
    assert_gradients(request)


@pytest.mark.parametrize("scale", [0.3, 0.0])
def test_edge_on_draws_only_the_filter(scale: float) -> None:
    request = single([0.02, 0.0, 3.0], math.pi / 2, scale)
    ours, oracle = project(request), define(request)
    assert ours["radii"].item() == (13 if scale else 1)
    assert (ours["perspective"] == 0).all() and (ours["whitening"] == 0).all()
    torch.testing.assert_close(ours["means2d"].double(), oracle["means2d"])
    ones = {name: torch.ones_like(ours[name]) for name in DIFFERENTIABLE}
    assert all(gradient.isfinite().all() for gradient in gradients(request, ones, False).values())
    only = gradients(request, {"perspective": ones["perspective"]}, False)
    assert all((gradient == 0).all() for gradient in only.values())


@pytest.mark.parametrize(
    ("changes", "visible"),
    [
        ({"mean": [0.0, 0.0, 2.0], "near_plane": 2.0}, True), ({"mean": [0.0, 0.0, 1.9999], "near_plane": 2.0}, False),
        ({"mean": [0.0, 0.0, 2.0], "far_plane": 2.0}, True), ({"mean": [0.0, 0.0, 2.0001], "far_plane": 2.0}, False),
        ({"mean": [0.0, 0.0, -2.0]}, False), ({"mean": [0.0, 0.0, 0.0], "near_plane": 0.0}, False),
        ({"opacity": 1 / 255}, True), ({"opacity": 0.00392}, False), ({"opacity": math.nan}, False),
        ({"scale": math.nan}, False), ({"scale": math.inf}, False), ({"mean": [math.nan, 0.0, 2.0]}, False),
        ({"mean": [0.0, math.inf, 2.0]}, False), ({"scale": 1e30}, False), ({"mean": [40.0, 0.0, 2.0]}, False),
        # One sigma in front of the camera plane, 3.33 sigma behind it: may be seen anywhere. One sigma behind: nowhere.
        ({"mean": [40.0, 0.0, 2.0], "normal_angle": 1.4, "scale": 1.0}, True),
        ({"mean": [0.0, 0.0, 2.0], "normal_angle": 1.4, "scale": 2.1}, False),
    ],
)  # fmt: skip
def test_culling(changes: dict[str, object], visible: bool) -> None:
    request = single(**({"mean": [0.0, 0.0, 2.0], "normal_angle": 0.3} | changes))  # pyright: ignore[reportArgumentType]
    ours = project(request)
    assert (ours["radii"].item() > 0) == visible
    assert all(value.isfinite().all() for value in ours.values())
    ones = {name: torch.ones_like(ours[name]) for name in DIFFERENTIABLE}
    found = gradients(request, ones, False)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert visible or all((gradient == 0).all() for gradient in found.values())


@pytest.mark.parametrize("quat", [[0.0] * 4, [1e-31, 0.0, 0.0, 0.0], [math.nan, 1.0, 0.0, 0.0]])
def test_quaternions_without_direction_are_culled(quat: list[float]) -> None:
    request = replace(single([0.0, 0.0, 2.0], 0.0), quats=torch.tensor([quat]))
    assert (project(request)["radii"] == 0).all()


def test_radius_clip_is_exclusive() -> None:
    request = single([0.0, 0.0, 3.0], 0.2)
    radius = project(request)["radii"].item()
    assert project(replace(request, radius_clip=radius - 0.5))["radii"].item() == radius
    assert project(replace(request, radius_clip=float(radius)))["radii"].item() == 0


def hit_alpha(request: RasterRequest, oracle: dict[str, Tensor]) -> Tensor:
    """Each surfel's largest alpha [C,N] over all pixels: its plane is intersected with every pixel's ray."""
    xs, ys = torch.meshgrid(torch.arange(request.width), torch.arange(request.height), indexing="xy")
    pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2).double() + 0.5
    surface = surface_distances(oracle["ray_transforms"][:, :, None], pixels)
    low_pass = 2 * (pixels - oracle["means2d"][:, :, None]).square().sum(-1)
    return (oracle["opacities"][..., None] * torch.exp(-0.5 * torch.minimum(surface, low_pass))).amax(-1)


@pytest.mark.parametrize("distance", [0.3, 1.0, 4.0])
def test_whatever_a_pixel_sees_is_visible(distance: float) -> None:
    request = surfels(1500, 11, width=24, height=18)
    viewmats = torch.eye(4)[None].clone()
    viewmats[:, 2, 3] = distance
    request = replace(request, viewmats=viewmats, scales=2 * request.scales)
    ours, oracle = project(request)["radii"] > 0, define(request)
    wanted = hit_alpha(request, oracle) > MIN_ALPHA * 1.001
    wanted &= (oracle["depths"] > 0.0101) & (oracle["tilt2"] < 0.9999)
    assert wanted.sum() > 50 and ours[wanted].all()
    # And not much more than that: only boxes that overlap the image, and supports that reach the camera plane.
    reach = 2 * torch.log(request.opacities.double() / MIN_ALPHA)
    assert (ours & ~wanted & (reach * oracle["tilt2"] < 0.99)).sum() < 0.25 * ours.sum()
