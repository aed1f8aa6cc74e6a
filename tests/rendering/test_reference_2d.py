"""The surfel oracle against closed forms, other ways to the same number, and gsplat's own projection."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from gsplat.cuda import _torch_impl_2dgs as gsplat_torch
from torch import Tensor

from closeup_ns.rendering.reference import surfels as reference_2d
from closeup_ns.rendering.reference.gaussians import rotation_matrices
from closeup_ns.rendering.reference.surfels import rasterize_reference_2d
from closeup_ns.rendering.request import SurfelRequest

from .scenes_2d import OUTPUTS, in_dtype, make_surfel_request, one_disc, pixel_rays, quaternion, random_loss

UPRIGHT = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
TILTS = [((1.0, 0.0, 0.0), 40.0), ((0.0, 1.0, 0.0), -65.0), ((0.6, 0.0, 0.8), 80.0), ((0.0, 0.6, 0.8), 140.0)]


def expected_alpha(request: SurfelRequest) -> Tensor:
    """Alpha [H,W] of the first disc: the ray's hit solves [t0 t1 -ray] (u, v, depth) = -mean, 3x3, per pixel."""
    axes, mean = rotation_matrices(request.quats)[0], request.means[0]
    tangents = axes[:, :2] * request.scales[0, :2]
    rays = pixel_rays(request)
    system = torch.cat([tangents.expand(*rays.shape[:2], 3, 2), -rays[..., None]], dim=-1)
    u, v, depth = torch.linalg.solve(system, -mean.expand_as(rays)).unbind(-1)
    surface = torch.where(depth > 0, u * u + v * v, torch.inf)
    # The box of the one-sigma circle, walked along: its middle is where the filter sits.
    turn = torch.linspace(0, 2 * torch.pi, 200_001, dtype=torch.float64)[:, None]
    circle = mean + turn.cos() * tangents[:, 0] + turn.sin() * tangents[:, 1]
    seen = circle[:, :2] / circle[:, 2:] * request.Ks[0].diagonal()[:2] + request.Ks[0, :2, 2]
    middle = (seen.amin(0) + seen.amax(0)) / 2
    pixels = rays[..., :2] * request.Ks[0].diagonal()[:2] + request.Ks[0, :2, 2]
    sigma = 0.5 * torch.minimum(surface, 2 * (pixels - middle).square().sum(-1))
    alpha = (request.opacities[0] * torch.exp(-sigma)).clamp(max=0.999)
    return torch.where(alpha >= 1 / 255, alpha, 0.0)


def test_a_frontal_disc_is_a_gaussian_of_the_pixel() -> None:
    request = one_disc((0.1, -0.05, 2.0), UPRIGHT, (0.2, 0.1), 0.8)
    images = rasterize_reference_2d(request)
    offset = pixel_rays(request)[..., :2] * 2.0 - request.means[0, :2]
    alpha = 0.8 * torch.exp(-0.5 * (offset / request.scales[0, :2]).square().sum(-1))
    torch.testing.assert_close(images.alphas[0, ..., 0], torch.where(alpha >= 1 / 255, alpha, 0.0))
    drawn = images.alphas[0, ..., 0] > 0
    assert images.distort is not None and not images.distort.any()
    torch.testing.assert_close(images.channels[0][drawn][:, 3], torch.full((int(drawn.sum()),), 2.0).double())
    torch.testing.assert_close(images.normals[0, ..., 2], -images.alphas[0, ..., 0])
    assert images.info["radii"].item() == 15  # 3 sigma of 0.2 * 50 / 2 = 5 pixels
    torch.testing.assert_close(images.info["means2d"][0, 0], torch.tensor([23.0, 14.5]).double())


@pytest.mark.parametrize("axis, degrees", TILTS)
@pytest.mark.parametrize("depth, scale", [(2.0, 1.0), (0.9, 1.0), (6.0, 0.2)])
def test_a_tilted_disc_is_the_rays_hit_with_its_plane(
    axis: tuple[float, float, float], degrees: float, depth: float, scale: float
) -> None:
    request = one_disc((0.05, 0.1, depth), quaternion(axis, degrees), (0.35 * scale, 0.15 * scale), 0.95)
    images = rasterize_reference_2d(request)
    expected = expected_alpha(request)
    assert (expected > 0).sum() > 4
    torch.testing.assert_close(images.alphas[0, ..., 0], expected, atol=1e-8, rtol=1e-8)
    normal = rotation_matrices(request.quats)[0, :, 2]
    normal = -normal if normal @ request.means[0] > 0 else normal
    torch.testing.assert_close(images.normals[0], expected[..., None] * normal, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(images.info["normals"][0, 0], normal)


def test_a_disc_past_the_cameras_plane_shows_no_mirror_image() -> None:
    """Its three-sigma rim lies behind the camera: the rays that would meet it there see nothing."""
    request = one_disc((0.0, 0.3, 1.0), quaternion((1.0, 0.0, 0.0), 85.0), (0.5, 0.6), 0.99)
    images, expected = rasterize_reference_2d(request), expected_alpha(request)
    assert images.info["radii"].item() > 0
    torch.testing.assert_close(images.alphas[0, ..., 0], expected, atol=1e-8, rtol=1e-8)
    assert (expected > 0).any() and (expected == 0).any()


def test_a_disc_that_reaches_the_camera_is_culled() -> None:
    request = one_disc((0.0, 0.3, 0.5), quaternion((1.0, 0.0, 0.0), 85.0), (0.5, 0.6), 0.99)
    images = rasterize_reference_2d(request)
    assert not images.info["radii"].any() and not images.alphas.any()


def test_an_edge_on_disc_is_its_filter() -> None:
    request = one_disc((0.0, 0.0, 2.0), quaternion((0.0, 1.0, 0.0), 90.0), (0.2, 0.1), 0.8)
    request = in_dtype(request, torch.float64, ("means", "quats", "scales"))
    images = rasterize_reference_2d(request)
    distance = (pixel_rays(request)[..., :2] * request.Ks[0].diagonal()[:2]).square().sum(-1)
    alpha = 0.8 * torch.exp(-distance)
    torch.testing.assert_close(
        images.alphas[0, ..., 0], torch.where(alpha >= 1 / 255, alpha, 0.0), atol=1e-9, rtol=1e-9
    )
    images.alphas.sum().backward()
    assert all(torch.isfinite(getattr(request, name).grad[:, :2]).all() for name in ("means", "quats", "scales"))


@pytest.mark.parametrize("name, value", [
    ("near_plane", 2.5), ("far_plane", 1.5), ("radius_clip", 15.0), ("opacities", torch.tensor([0.0039]).double()),
    ("means", torch.tensor([[0.0, float("nan"), 2.0]]).double()), ("means", torch.tensor([[9.0, 0.0, 2.0]]).double()),
    ("scales", torch.tensor([[float("inf"), 0.1, 0.1]]).double()),
])  # fmt: skip
def test_what_cannot_be_seen_is_culled(name: str, value: object) -> None:
    request = one_disc((0.1, -0.05, 2.0), UPRIGHT, (0.2, 0.1), 0.8)
    assert rasterize_reference_2d(request).info["radii"].item() == 15
    images = rasterize_reference_2d(replace(request, **{name: value}))  # pyright: ignore[reportArgumentType]
    assert images.info["radii"].item() == 0 and not images.alphas.any()


BROKEN = [float("nan"), float("inf"), float("-inf"), 1e200, 0.0]


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities"])
def test_broken_numbers_are_culled_and_spoil_no_gradient(field: str, generator: torch.Generator) -> None:
    request = in_dtype(make_surfel_request(40, generator), torch.float64)
    request = replace(request, colors=torch.rand(40, 3, generator=generator).double(), sh_degree=None)
    values = getattr(request, field).clone()
    values.reshape(40, -1)[: len(BROKEN)] = torch.tensor(BROKEN, dtype=torch.float64)[:, None]
    names = ("means", "quats", "scales", "opacities", "colors")
    broken = in_dtype(replace(request, **{field: values}), torch.float64, names)
    images = rasterize_reference_2d(broken)
    random_loss(images).backward()
    assert not images.info["radii"][:, :3].any()
    assert all(torch.isfinite(getattr(broken, name).grad).all() for name in names)
    if not images.info["radii"][:, 3:5].any():
        without = {name: getattr(request, name)[len(BROKEN) :] for name in names}
        torch.testing.assert_close(images.alphas, rasterize_reference_2d(replace(request, **without)).alphas)


def layers(generator: torch.Generator, count: int = 7) -> SurfelRequest:
    """Frontal discs far wider than the image at random depths, so that every pixel blends all of them evenly."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).double()

    request = one_disc((0.0, 0.0, 1.0), UPRIGHT, (1e4, 1e4), 1.0, width=3, height=2)
    means = torch.cat([torch.zeros(count, 2).double(), 1e4 * (2 + 3 * rand(count, 1))], dim=-1)
    return replace(
        request, means=means, quats=UPRIGHT.repeat(count, 1), scales=torch.full((count, 3), 1e7).double(),
        opacities=0.1 + 0.4 * rand(count), colors=rand(count, 3),
    )  # fmt: skip


def test_layers_blend_front_to_back(generator: torch.Generator) -> None:
    request = layers(generator)
    images = rasterize_reference_2d(request)
    order = request.means[:, 2].argsort()
    alpha, depth, colors = request.opacities[order], request.means[order, 2], request.colors[order]
    light, weights, total = 1.0, [], torch.zeros(4).double()
    for i in range(len(order)):
        weights.append(alpha[i].item() * light)
        total += weights[-1] * torch.cat([colors[i], depth[i : i + 1]])
        light *= 1 - alpha[i].item()
    assert images.distort is not None
    total[3] /= 1 - light
    torch.testing.assert_close(images.channels[0], total.expand(2, 3, 4), rtol=1e-6, atol=1e-6)
    w = torch.tensor(weights).double()
    distortion = (w[:, None] * w * (depth[:, None] - depth).abs()).sum()
    torch.testing.assert_close(images.distort[0], distortion.expand(2, 3, 1), rtol=1e-6, atol=1e-6)
    assert depth.diff().min() > 0


def test_opaque_layers_stop_the_pixel(generator: torch.Generator) -> None:
    request = replace(layers(generator), opacities=torch.ones(7).double())
    images = rasterize_reference_2d(request)
    torch.testing.assert_close(images.alphas, torch.full_like(images.alphas, 0.999), rtol=1e-9, atol=0)


def test_projection_is_gsplats(generator: torch.Generator) -> None:
    """gsplat's own PyTorch projection: same transforms, centres, normals and radii where both see a disc."""
    request = in_dtype(make_surfel_request(300, generator, cameras=2), torch.float64)
    projected = gsplat_torch._fully_fused_projection_2dgs(
        request.means, request.quats, request.scales, request.viewmats, request.Ks, request.width, request.height
    )
    radii, means2d, depths, transforms, normals = cast(tuple[Tensor, ...], projected)
    ours = rasterize_reference_2d(request).info
    both = (ours["radii"] > 0) & (radii > 0)
    assert both.sum() > 100
    torch.testing.assert_close(ours["ray_transforms"][both], transforms.transpose(-1, -2)[both])
    torch.testing.assert_close(ours["means2d"][both], means2d[both])
    torch.testing.assert_close(ours["depths"][both], depths[both])
    # gsplat's PyTorch code leaves the third scale in the normal, its CUDA code does not.
    torch.testing.assert_close(ours["normals"][both], torch.nn.functional.normalize(normals, dim=-1)[both])
    assert (ours["radii"][both] - radii[both]).abs().max() <= 1


def test_the_support_box_holds_every_pixel(generator: torch.Generator) -> None:
    """Each disc alone: exactly the pixels of the boxes may be drawn, and where nothing is drawn the box is small."""
    request = in_dtype(make_surfel_request(60, generator, sh_degree=None), torch.float64)
    request = replace(request, colors=torch.ones(60, 3).double())
    boxes, radii = (rasterize_reference_2d(request).info[key][0] for key in ("support", "radii"))
    names = ("means", "quats", "scales", "opacities", "colors")
    for i in torch.nonzero(radii)[:25, 0].tolist():
        alone = replace(request, **{name: getattr(request, name)[i : i + 1] for name in names})
        alpha = expected_alpha(replace(alone, means=alone.means + request.viewmats[0, :3, 3]))
        drawn = torch.nonzero(alpha).flip(-1) + 0.5
        assert ((drawn >= boxes[i, 0]) & (drawn <= boxes[i, 1])).all()
        # Its edges touch the support: a pixel farther in something is drawn, unless the image ends before.
        inner = boxes[i].clamp(min=torch.zeros(2), max=torch.tensor([request.width, request.height]))
        if len(drawn) > 40:
            assert (drawn.amin(0) - inner[0] < 4).all() and (inner[1] - drawn.amax(0) < 4).all()


def test_gradients_are_those_of_finite_differences(generator: torch.Generator) -> None:
    """Every input and output, in float64, away from the jumps of the support."""
    request = make_surfel_request(6, generator, width=9, height=7, opacities=torch.full((6,), 0.35), sh_degree=1)
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
    request = in_dtype(replace(request, scales=request.scales * 6), torch.float64, names)

    def outputs(*tensors: Tensor) -> Tensor:
        images = rasterize_reference_2d(replace(request, **dict(zip(names, tensors))))
        return torch.cat([getattr(images, name).reshape(-1)[::17] for name in OUTPUTS])

    assert rasterize_reference_2d(request).info["radii"].gt(0).sum() >= 4
    inputs = tuple(getattr(request, name) for name in names)
    assert torch.autograd.gradcheck(outputs, inputs, eps=1e-7, atol=2e-4, rtol=1e-3, fast_mode=True)


def test_densify_gradient_is_a_shift_through_the_surface(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against finite differences: M[0,2] and M[1,2] of one disc move by depth * step, its filter stays where it is."""
    request = in_dtype(make_surfel_request(40, generator, cameras=2), torch.float64, ("means",))
    images = rasterize_reference_2d(request)
    random_loss(images).backward()
    gradient, step = images.info["gradient_2dgs"].grad, 1e-7
    project = reference_2d._project_camera
    checked = torch.nonzero(gradient.abs() > 1e-2)[::9].tolist()
    assert len(checked) >= 5

    def loss(camera: int, disc: int, axis: int, shift: float) -> float:
        def shifted(request: SurfelRequest, seen_by: int) -> dict[str, Tensor]:
            splats = project(request, seen_by)
            if seen_by == camera:
                splats["ray_transforms"] = splats["ray_transforms"].clone()
                splats["ray_transforms"][disc, axis, 2] += shift * splats["depths"][disc]
            return splats

        monkeypatch.setattr(reference_2d, "_project_camera", shifted)
        with torch.no_grad():
            return random_loss(rasterize_reference_2d(request)).item()

    for camera, disc, axis in checked:
        slope = (loss(camera, disc, axis, step) - loss(camera, disc, axis, -step)) / (2 * step)
        assert gradient[camera, disc, axis].item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_no_surfels_are_black(generator: torch.Generator) -> None:
    images = rasterize_reference_2d(make_surfel_request(0, generator))
    assert not images.channels.any() and not images.normals.any()
    assert images.info["means2d"].shape == (1, 0, 2)


def test_float32_follows_float64(generator: torch.Generator) -> None:
    request = make_surfel_request(150, generator)
    exact = rasterize_reference_2d(in_dtype(request, torch.float64))
    images = rasterize_reference_2d(request)
    for name in OUTPUTS:
        difference = (getattr(images, name).double() - getattr(exact, name)).norm()
        assert difference < 1e-3 * getattr(exact, name).norm(), name
