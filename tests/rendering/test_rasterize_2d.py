"""The surfels' seam: gsplat's names, world-space normals, normals of the depth, errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gsplat.utils import depth_to_normal
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.gsplat_backend import surfel_images_of_gsplat
from closeup_ns.rendering.normals import normals_from_depth
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.reference.gaussians import rotation_matrices
from closeup_ns.rendering.reference.surfels import rasterize_reference_2d
from closeup_ns.rendering.request import SurfelRequest

from .scenes_2d import in_dtype, make_surfel_request, one_disc, pixel_rays, quaternion


def call(request: SurfelRequest, **options: Any) -> Any:
    positional = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "width", "height")
    named = ("sh_degree", "render_mode", "distloss")
    options = {**{name: getattr(request, name) for name in named}, **options}
    return rasterization_2dgs(*(getattr(request, name) for name in positional), **options)


def turned_cameras(request: SurfelRequest, generator: torch.Generator) -> SurfelRequest:
    """The cameras of a request, each one rolled and tilted by its own rotation."""
    count = len(request.viewmats)
    quats = torch.tensor([1.0, 0, 0, 0]) + 0.15 * torch.randn(count, 4, generator=generator)
    viewmats = request.viewmats.clone()
    viewmats[:, :3, :3] = rotation_matrices(quats).to(viewmats)
    return replace(request, viewmats=viewmats)


@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_six_results(render_mode: str, generator: torch.Generator) -> None:
    request = make_surfel_request(40, generator, cameras=2, render_mode=render_mode, distloss=render_mode != "RGB")
    channels, alphas, normals, surface_normals, distort, info = call(request)
    blended = {"RGB": 3, "RGB+ED": 4}[render_mode]
    assert channels.shape == (2, 37, 45, blended) and alphas.shape == (2, 37, 45, 1) and normals.shape[-1] == 3
    if render_mode == "RGB":
        assert surface_normals is None and distort is None
    else:
        assert surface_normals.shape == normals.shape and distort.shape == alphas.shape
    assert info["radii"].shape == (2, 40) and not info["radii"].is_floating_point()
    assert info["gradient_2dgs"].shape == info["means2d"].shape == (2, 40, 2)
    assert info["ray_transforms"].shape == (2, 40, 3, 3) and info["normals"].shape == (2, 40, 3)
    assert (info["width"], info["height"], info["n_cameras"], info["gaussian_ids"]) == (45, 37, 2, None)
    assert info["render_distort"] is distort


@pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])
@pytest.mark.parametrize("render_mode", ["RGB", "RGB+ED"])
def test_the_kernels_are_what_renders_here(render_mode: str, generator: torch.Generator) -> None:
    request = make_surfel_request(150, generator, cameras=2, render_mode=render_mode, distloss=render_mode != "RGB")
    request = turned_cameras(request, generator)
    by_kernels, on_torch = call(request), call(in_dtype(request, torch.float64), backend="torch")
    for ours, theirs in zip(by_kernels[:3] + by_kernels[4:5], on_torch[:3] + on_torch[4:5]):
        if theirs is None:
            assert ours is None
        else:
            assert (ours.double() - theirs).norm() < 1e-3 * theirs.norm()
    assert torch.equal(by_kernels[5]["radii"] > 0, on_torch[5]["radii"] > 0)
    assert set(by_kernels[5]) >= set(on_torch[5]) - {"support"}


def test_normals_turn_with_their_own_camera(generator: torch.Generator) -> None:
    request = turned_cameras(make_surfel_request(60, generator, cameras=3), generator)
    together = call(request, backend="torch")
    for camera in range(3):
        pick = slice(camera, camera + 1)
        alone = call(replace(request, viewmats=request.viewmats[pick], Ks=request.Ks[pick]), backend="torch")
        for ours, theirs in zip(together[:5], alone[:5]):
            torch.testing.assert_close(ours[pick], theirs)
    camera_space = rasterize_reference_2d(request).normals
    inverse = torch.linalg.inv(request.viewmats)[:, None, :3, :3]
    torch.testing.assert_close(together[2], camera_space @ inverse.transpose(-1, -2), atol=1e-5, rtol=1e-5)


def test_gsplats_normals_are_corrected_beyond_the_first_camera(generator: torch.Generator) -> None:
    """Fed with what gsplat's last line makes of the normals, every camera's own come back."""
    request = in_dtype(turned_cameras(make_surfel_request(30, generator, cameras=3), generator), torch.float64)
    images = rasterize_reference_2d(request)
    world = images.normals @ torch.linalg.inv(request.viewmats)[0, :3, :3].T
    info = {"render_distort": images.distort, "n_cameras": 3}
    outputs = (images.channels, images.alphas, world, None, images.distort, None, info)
    back = surfel_images_of_gsplat(request, outputs)
    torch.testing.assert_close(back.normals, images.normals)
    assert back.distort is images.distort and back.info["n_cameras"] == 3
    without = replace(request, distloss=False, render_mode="RGB")
    back = surfel_images_of_gsplat(without, outputs)
    assert back.distort is None and back.info["render_distort"] is None


def plane_scene() -> tuple[SurfelRequest, Tensor]:
    """A tilted plane of overlapping discs before a turned camera, and the plane's normal [3] towards it (world)."""
    quat = quaternion((0.6, 0.8, 0.0), 35.0)
    axes = rotation_matrices(quat[None])[0]
    center = torch.tensor([0.1, -0.2, 2.0], dtype=torch.float64)
    steps = torch.linspace(-2.0, 2.0, 60, dtype=torch.float64)
    means = center + torch.cartesian_prod(steps, steps) @ axes[:, :2].T
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = rotation_matrices(quaternion((0.0, 0.6, 0.8), 25.0)[None])[0]
    viewmat[:3, 3] = torch.tensor([0.0, 0.0, 2.0]) - viewmat[:3, :3] @ center
    request = replace(
        one_disc((0.0, 0.0, 2.0), quat, (0.1, 0.1), 1.0), means=means, quats=quat.repeat(3600, 1),
        scales=torch.full((3600, 3), 0.1).double(), opacities=torch.full((3600,), 0.95).double(),
        colors=torch.ones(3600, 1).double(), viewmats=viewmat[None],
    )  # fmt: skip
    position = -viewmat[:3, :3].T @ viewmat[:3, 3]
    normal = axes[:, 2] * torch.sign(axes[:, 2] @ (position - center))
    return request, normal


def test_rendered_and_depth_normals_agree_on_a_plane() -> None:
    request, normal = plane_scene()
    _, alphas, normals, surface_normals, _, _ = call(request, backend="torch")
    solid = (alphas[0, 1:-1, 1:-1, 0] > 0.99).flatten()
    assert solid.float().mean() > 0.9
    rendered = (normals / alphas)[0, 1:-1, 1:-1].flatten(0, 1)[solid]
    torch.testing.assert_close(rendered, normal.expand_as(rendered), atol=1e-9, rtol=0)
    of_depth = surface_normals[0, 1:-1, 1:-1].flatten(0, 1)[solid]
    # Blended are the depths of the centres, not of the hits: the depth image is a little rough.
    assert (of_depth @ normal).min() > 0.99


def random_camera(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    viewmats = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    viewmats[:, :3, :3] = rotation_matrices(torch.randn(2, 4, generator=generator).double())
    viewmats[:, :3, 3] = torch.randn(2, 3, generator=generator).double()
    K = one_disc((0.0, 0.0, 1.0), quaternion((1.0, 0.0, 0.0), 0.0), (1.0, 1.0), 1.0).Ks
    return viewmats, K.repeat(2, 1, 1)


def test_normals_of_a_plane(generator: torch.Generator) -> None:
    """z-depth of n . x = -2 along each ray: exact to rounding, as central differences lie in the plane."""
    viewmats, Ks = random_camera(generator)
    rays = pixel_rays(one_disc((0.0, 0.0, 1.0), quaternion((1.0, 0.0, 0.0), 0.0), (1.0, 1.0), 1.0))
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, -1.0]).double(), dim=0)
    depth = (-2.0 / (rays @ normal))[None, ..., None].repeat(2, 1, 1, 1)
    normals = normals_from_depth(depth, viewmats, Ks)
    expected = (normal @ viewmats[:, :3, :3])[:, None, None].expand(2, 29, 39, 3)
    torch.testing.assert_close(normals[:, 1:-1, 1:-1], expected)
    border = normals.clone()
    border[:, 1:-1, 1:-1] = 0
    assert not border.any()
    torch.testing.assert_close(normals, depth_to_normal(depth, torch.linalg.inv(viewmats), Ks))


def test_normals_of_a_sphere(generator: torch.Generator) -> None:
    viewmats, Ks = random_camera(generator)
    rays = pixel_rays(one_disc((0.0, 0.0, 1.0), quaternion((1.0, 0.0, 0.0), 0.0), (1.0, 1.0), 1.0))
    center, radius = torch.tensor([0.0, 0.0, 5.0]).double(), 3.0
    along, length = rays @ center, rays.square().sum(-1)
    depth = (along - (along.square() - length * (center @ center - radius**2)).sqrt()) / length
    normals = normals_from_depth(depth.nan_to_num(0.0)[None, ..., None].repeat(2, 1, 1, 1), viewmats, Ks)
    expected = ((depth[..., None] * rays - center) / radius)[None] @ viewmats[:, None, :3, :3]
    flat = (expected[0] @ viewmats[0, :3, :3].T)[..., 2] < -0.7  # facing the camera, far from the silhouette
    flat[[0, -1]], flat[:, [0, -1]] = False, False
    assert flat.sum() > 100
    assert (normals * expected).sum(-1)[:, flat].min() > 0.999


def test_normals_of_holes_are_zero_and_so_are_their_gradients(generator: torch.Generator) -> None:
    viewmats, Ks = random_camera(generator)
    depth = torch.zeros(2, 31, 41, 1, dtype=torch.float64)
    depth[:, 10:20, 10:11] = 1.5  # a line of one pixel: its neighbours span no surface
    depth.requires_grad_()
    normals = normals_from_depth(depth, viewmats, Ks)
    assert not normals[:, :, 13:].any()
    normals.sum().backward()
    assert depth.grad is not None and depth.grad.abs().max() < 1e3
    assert not normals_from_depth(depth[:, :2, :2], viewmats, Ks).any()


def test_seam_says_what_is_wrong(generator: torch.Generator) -> None:
    """What 3D Gaussians cannot be told either: test_both_kinds.py."""
    request = make_surfel_request(30, generator)
    for changes, message in (
        ({"quats": torch.zeros(29, 4)}, "rasterization_2dgs: quats has shape"),
        ({"scales": torch.zeros(30, 2)}, "scales has shape"),
        ({"colors": torch.zeros(30, 4), "sh_degree": None}, "5 channels in one call, at most 4"),
        ({"render_mode": "RGB"}, "distloss needs"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call(replace(request, **changes))
