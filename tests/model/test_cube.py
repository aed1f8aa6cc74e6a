"""Panoramas, fisheyes and VR180 by the faces of a cube, held against the directions that define them."""

from __future__ import annotations

import math

import pytest
import torch
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.cameras import Cameras, CameraType
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.model.cameras import view_of
from closeup_ns.model.cube import render_by_cube
from closeup_ns.studio.trainer import CloseupTrainer
from closeup_ns.views.warp import inside, pixel_grid, project, sample
from tests.scenes import analytic_renderer, orbit_views, texture

RADIUS = 3.0
INSIDE_A_SPHERE = analytic_renderer(wall=None, boxes=(), spheres=(((0.0, 0.0, 0.0), RADIUS),))
C2W = torch.cat([orbit_views(5)[3].c2w[:3, :3].float(), torch.tensor([[0.3], [-0.4], [0.2]])], dim=1)
IPD = 0.064


def pinhole(camera: Cameras) -> dict[str, Tensor]:
    """The inside of a textured sphere, and a colour that says where the camera was."""
    assert camera.camera_type.item() == CameraType.PERSPECTIVE.value
    rendered = INSIDE_A_SPHERE(view_of(camera, 0))
    place = view_of(camera, 0).position.expand(*rendered.depth.shape, 3)
    return {"rgb": rendered.color, "depth": rendered.depth[..., None], "place": place, "background": torch.zeros(3)}


def camera_of(kind: str, width: int, height: int) -> Cameras:
    """As ns-render makes it from a camera path."""
    c2w = torch.cat([C2W, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    frame = {"camera_to_world": c2w.flatten().tolist(), "fov": 120.0}
    path = {"render_width": width, "render_height": height, "camera_type": kind, "camera_path": [frame]}
    return get_path_from_json(path)


def sphere_seen_along(directions: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and distance of the sphere from ``origin`` along unit ``directions``."""
    b = directions @ origin
    distance = -b + (b.square() - origin @ origin + RADIUS**2).sqrt()
    return texture(origin + distance[..., None] * directions), distance


def spherical(width: int, height: int, degrees: float) -> Tensor:
    """Directions in OpenGL camera axes of an equirectangular picture that is ``degrees`` wide and 180 high."""
    u, v = pixel_grid(height, width).unbind(-1)
    longitude, latitude = math.radians(degrees) * (u / width - 0.5), math.pi * (0.5 - v / height)
    x, z = longitude.sin() * latitude.cos(), -longitude.cos() * latitude.cos()
    return torch.stack([x, latitude.sin(), z], dim=-1)


def equidistant(width: int, height: int) -> Tensor:
    """Directions in OpenGL camera axes of a fisheye whose 120 degrees of a pinhole would be its height."""
    focal = 0.5 * height / math.tan(math.radians(60.0))
    x, y = ((pixel_grid(height, width) - torch.tensor([width / 2, height / 2])) / focal).unbind(-1)
    theta = torch.hypot(x, y).clamp(max=math.pi)
    scale = torch.sinc(theta / math.pi)
    return torch.stack([x * scale, -y * scale, -theta.cos()], dim=-1)


@pytest.mark.parametrize(
    ("kind", "directions", "size"),
    [
        ("equirectangular", spherical(200, 100, 360.0), (200, 100)),
        ("fisheye", equidistant(120, 90), (120, 90)),
        ("fisheye", equidistant(121, 91), (121, 91)),  # a pixel right at the principal point
    ],
)
def test_each_pixel_shows_what_lies_in_its_direction(kind: str, directions: Tensor, size: tuple[int, int]) -> None:
    outputs = render_by_cube(pinhole, camera_of(kind, *size))
    color, distance = sphere_seen_along(directions @ C2W[:, :3].T, C2W[:, 3])
    torch.testing.assert_close(outputs["rgb"], color, atol=6e-3, rtol=0)
    torch.testing.assert_close(outputs["depth"][..., 0], distance, atol=6e-3, rtol=0)
    torch.testing.assert_close(outputs["place"], C2W[:, 3].expand_as(color))
    assert torch.equal(outputs["background"], torch.zeros(3))


@pytest.mark.parametrize(("kind", "side"), [(CameraType.VR180_L, -1), (CameraType.VR180_R, 1)])
def test_each_eye_of_vr180_stands_at_its_place(kind: CameraType, side: int) -> None:
    camera = camera_of("vr180", 100, 100)
    camera.camera_type[:] = kind.value
    outputs = render_by_cube(pinhole, camera)
    eye = C2W[:, 3] + side * IPD / 2 * C2W[:, 0]
    color, _ = sphere_seen_along(spherical(100, 100, 180.0) @ C2W[:, :3].T, eye)
    torch.testing.assert_close(outputs["place"], eye.expand_as(color))
    torch.testing.assert_close(outputs["rgb"], color, atol=6e-3, rtol=0)


@pytest.mark.parametrize("kind", [CameraType.OMNIDIRECTIONALSTEREO_L, CameraType.ORTHOPHOTO])
def test_rays_from_many_points_are_refused(kind: CameraType) -> None:
    camera = camera_of("omnidirectional", 20, 10)
    camera.camera_type[:] = kind.value
    with pytest.raises(CloseupError, match=f"type {kind.name} .*Make the path's camera_type perspective, fisheye"):
        render_by_cube(pinhole, camera)


def test_the_models_panorama_holds_its_perspective_picture(trainer: CloseupTrainer) -> None:
    model = trainer.pipeline.model
    model.eval()
    camera = trainer.pipeline.datamanager.train_dataset.cameras[0:1]
    flat = model.get_outputs_for_camera(camera)
    c2w = torch.cat([camera.camera_to_worlds[0], torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    frame = {"camera_to_world": c2w.flatten().tolist()}
    size = {"render_width": 360, "render_height": 180}
    path = get_path_from_json({**size, "camera_type": "equirectangular", "camera_path": [frame]})
    around = model.get_outputs_for_camera(path)
    view, rays = view_of(camera, 0), path.generate_rays(camera_indices=0)
    uv, z = project(view, rays.origins + rays.directions)
    seen = inside(view, uv, z)
    expected = sample(flat["rgb"].permute(2, 0, 1), uv[seen]).T
    assert around["rgb"].shape == (180, 360, 3) and int(seen.sum()) > 1000
    assert float((around["rgb"][seen] - expected).abs().mean()) < 0.03 < float(expected.std())
