"""Ray-traced scenes with exact depth, for tests and benchmarks: `analytic_renderer` and rigs of cameras around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View, look_at
from closeup_ns.views.warp import camera_rays, pixel_grid

Box = tuple[Sequence[float], Sequence[float]]
Sphere = tuple[Sequence[float], float]

BOX: Box = ((0.10, -0.20, 3.60), (0.40, 0.20, 3.70))
"""A box in front of the wall, right of the origin's axis: the default occluder."""


def texture(points: Tensor) -> Tensor:
    """A smooth colour [..., 3] in [0, 1] for world points [..., 3], the same from every direction."""
    x, y, z = points.unbind(-1)
    return torch.stack(
        [
            0.5 + 0.4 * torch.sin(2.0 * x + y + z),
            0.5 + 0.4 * torch.cos(2.0 * y - z),
            0.5 + 0.3 * torch.sin(x - 2.0 * y),
        ],
        dim=-1,
    )


def _hit_wall(origin: Tensor, rays: Tensor, wall: float) -> Tensor:
    distance = (wall - origin[2]) / rays[..., 2]
    return torch.where(distance > 0, distance, torch.inf)


def _hit_box(origin: Tensor, rays: Tensor, box: Box) -> Tensor:
    low, high = (origin.new_tensor(corner) for corner in box)
    first, second = (low - origin) / rays, (high - origin) / rays
    enter = torch.minimum(first, second).amax(-1)
    leave = torch.maximum(first, second).amin(-1)
    # From within, the far side is what is seen: a camera inside geometry sees a surface right before it.
    distance = torch.where(enter > 0, enter, leave)
    return torch.where((leave >= enter) & (distance > 0), distance, torch.inf)


def _hit_sphere(origin: Tensor, rays: Tensor, sphere: Sphere) -> Tensor:
    offset = origin - origin.new_tensor(sphere[0])
    a = rays.square().sum(-1)
    b = (rays * offset).sum(-1)
    discriminant = b.square() - a * (offset.square().sum() - sphere[1] ** 2)
    root = discriminant.clamp_min(0.0).sqrt()
    near, far = (-b - root) / a, (-b + root) / a
    distance = torch.where(near > 0, near, far)
    return torch.where((discriminant >= 0) & (distance > 0), distance, torch.inf)


def analytic_renderer(
    wall: float | None = 4.0,
    boxes: Sequence[Box] = (BOX,),
    spheres: Sequence[Sphere] = (),
    paint: Callable[[Tensor], Tensor] = texture,
) -> Renderer:
    """A renderer of a wall at world z = ``wall`` (None: no wall), axis-aligned boxes and spheres.

    ``paint``: the colour [..., 3] of each world point [..., 3] on their surfaces.

    Depth is exact z-depth at pixel centres; alpha is 1 where something is hit, else 0 (with black and depth 0). Rays
    have unit camera z, so the ray parameter is the z-depth. Computes in the view's own type and on its device.
    """

    def render(view: View) -> Rendered:
        grid = pixel_grid(view.height, view.width, view.device, view.c2w.dtype)
        rays = camera_rays(view, grid) @ view.c2w[:3, :3].T
        rays = torch.where(rays.abs() < 1e-12, torch.full_like(rays, 1e-12), rays)
        hits = [torch.full(rays.shape[:2], torch.inf, dtype=rays.dtype, device=rays.device)]
        hits += [] if wall is None else [_hit_wall(view.position, rays, wall)]
        hits += [_hit_box(view.position, rays, box) for box in boxes]
        hits += [_hit_sphere(view.position, rays, sphere) for sphere in spheres]
        nearest = torch.stack(hits).amin(0)
        solid = torch.isfinite(nearest)
        depth = torch.where(solid, nearest, torch.zeros_like(nearest))
        color = paint(view.position + rays * depth[..., None]) * solid[..., None]
        return Rendered(color=color, depth=depth, alpha=solid.to(depth.dtype))

    return render


def intrinsics(width: int, height: int, focal: float = 0.95, dtype: torch.dtype = torch.float64) -> Tensor:
    """K [3, 3] with a focal length of ``focal`` long sides and a centred principal point."""
    f = focal * max(width, height)
    return torch.tensor([[f, 0.0, width / 2], [0.0, f, height / 2], [0.0, 0.0, 1.0]], dtype=dtype)


def facing_views(
    count: int,
    target: Sequence[float] = (0.0, 0.0, 4.0),
    spread: Sequence[float] = (0.9, 0.6, 0.2),
    size: tuple[int, int] = (160, 120),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> list[View]:
    """A forward-facing capture: cameras around the origin, within ``spread``, that look roughly at ``target``.

    World y points down, so the world's "up" is -y, and the cameras look along +z.
    """
    generator = torch.Generator().manual_seed(seed)
    K = intrinsics(*size, dtype=dtype)
    up = torch.tensor([0.0, -1.0, 0.0], dtype=dtype)
    views = []
    for _ in range(count):
        offset, aim = torch.rand(2, 3, generator=generator, dtype=torch.float64).mul(2.0).sub(1.0).to(dtype)
        position = offset * torch.tensor(spread, dtype=dtype)
        point = torch.tensor(target, dtype=dtype) + aim * 0.3
        views.append(look_at(position, point, up, K, *size))
    return views


def orbit_views(
    count: int,
    center: Sequence[float] = (0.0, 0.0, 0.0),
    radius: float = 3.0,
    size: tuple[int, int] = (160, 120),
    dtype: torch.dtype = torch.float64,
) -> list[View]:
    """A full orbit in the x-z plane, slightly raised, looking at ``center``; world "up" is -y."""
    middle = torch.tensor(center, dtype=dtype)
    angles = torch.arange(count, dtype=dtype) * (2.0 * torch.pi / count)
    offsets = torch.stack([angles.cos(), torch.full_like(angles, -0.3), angles.sin()], dim=-1) * radius
    up = torch.tensor([0.0, -1.0, 0.0], dtype=dtype)
    return [look_at(middle + offset, middle, up, intrinsics(*size, dtype=dtype), *size) for offset in offsets]
