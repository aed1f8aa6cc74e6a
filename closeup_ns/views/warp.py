"""Pixels to world points and back, and sampling between views.

Conventions as in `closeup_ns.views.view`. Pixel coordinates ``uv`` are (column, row); the centre of the first pixel
is (0.5, 0.5) and the image spans [0, width) x [0, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.views.view import View

MIN_DEPTH = 1e-8
"""Depths are held above this before a division, so that points on or behind the camera plane stay finite."""


def pixel_grid(
    height: int, width: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Float[Tensor, "height width 2"]:
    """Coordinates (column, row) of every pixel's centre."""
    columns = torch.arange(width, device=device, dtype=dtype or torch.get_default_dtype()) + 0.5
    rows = torch.arange(height, device=device, dtype=dtype or torch.get_default_dtype()) + 0.5
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([u, v], dim=-1)


def camera_rays(view: View, uv: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 3"]:
    """Rays through ``uv`` in camera coordinates with unit z: times a z-depth they are the camera-space point."""
    focal = torch.stack([view.K[0, 0], view.K[1, 1]])
    xy = (uv - view.K[:2, 2]) / focal
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def unproject(view: View, uv: Float[Tensor, "*n 2"], depth: Float[Tensor, "*n"]) -> Float[Tensor, "*n 3"]:
    """World points at z-depth ``depth`` behind the pixel coordinates ``uv``."""
    return (camera_rays(view, uv) * depth[..., None]) @ view.c2w[:3, :3].T + view.position


def backproject(view: View, depth: Float[Tensor, "H W"]) -> Float[Tensor, "H W 3"]:
    """World point of every pixel centre at its z-depth. ``depth`` must have the view's size."""
    return unproject(view, pixel_grid(view.height, view.width, depth.device, depth.dtype), depth)


def project(view: View, points: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "*n 2"], Float[Tensor, "*n"]]:
    """Pixel coordinates and z-depth of world ``points``.

    Points behind the camera get a negative depth and meaningless, finite coordinates: test with `inside`.
    """
    local = (points - view.position) @ view.c2w[:3, :3]
    z = local[..., 2]
    focal = torch.stack([view.K[0, 0], view.K[1, 1]])
    return local[..., :2] / z.clamp_min(MIN_DEPTH)[..., None] * focal + view.K[:2, 2], z


def transfer_matrix(
    source_K: Float[Tensor, "*n 3 3"],
    source_c2w: Float[Tensor, "*n 4 4"],
    destination_K: Float[Tensor, "*n 3 3"],
    destination_c2w: Float[Tensor, "*n 4 4"],
) -> Float[Tensor, "*n 3 4"]:
    """Matrices that take a source pixel with its depth straight to the destination's pixels; leading axes broadcast.

    ``M @ (u d, v d, d, 1) = (u' z', v' z', z')`` for source pixel (u, v) at z-depth d. The poses are combined in
    float64, so a scene far from the world's origin loses no precision; the result has the type of ``source_K``.
    """
    rotation = destination_c2w[..., :3, :3].double().transpose(-1, -2)
    offset = source_c2w[..., :3, 3].double() - destination_c2w[..., :3, 3].double()
    K = destination_K.double()
    linear = K @ rotation @ source_c2w[..., :3, :3].double() @ torch.linalg.inv(source_K.double())
    shift = K @ rotation @ offset[..., None]
    return torch.cat([linear, shift], dim=-1).to(source_K.dtype)


def inside(view: View, uv: Float[Tensor, "*n 2"], z: Float[Tensor, "*n"], near: float = 1e-4) -> Bool[Tensor, "*n"]:
    """Whether a projection is in front of the camera (z-depth above ``near``) and within the image."""
    u, v = uv[..., 0], uv[..., 1]
    return (z > near) & (u >= 0) & (u < view.width) & (v >= 0) & (v < view.height)


def most_central(views: Sequence[View], point: Float[Tensor, "3"]) -> list[int]:
    """Indices of the views with world ``point`` in their image, the one that has it nearest to its middle first."""
    distances = {}
    for index, view in enumerate(views):
        uv, z = project(view, point.to(view.c2w))
        if bool(inside(view, uv, z)):
            distances[index] = float((uv - uv.new_tensor([view.width / 2, view.height / 2])).norm())
    return sorted(distances, key=distances.__getitem__)


def sample(
    image: Float[Tensor, "C H W"], uv: Float[Tensor, "*n 2"], mode: Literal["bilinear", "nearest"] = "bilinear"
) -> Float[Tensor, "C *n"]:
    """Values of ``image`` at pixel coordinates ``uv``.

    Outside the image the nearest border pixel is returned, so that the outer half pixel is not darkened; mask with
    `inside`. Depth must be sampled with "nearest": a blend of two surfaces' depths is a point on neither.
    """
    height, width = image.shape[-2:]
    if mode == "nearest":
        column = uv[..., 0].floor().clamp(0, width - 1).long()
        row = uv[..., 1].floor().clamp(0, height - 1).long()
        return image[:, row, column]
    size = torch.tensor([width, height], dtype=uv.dtype, device=uv.device)
    grid = (2.0 * uv / size - 1.0).reshape(1, 1, -1, 2)
    values = F.grid_sample(
        image[None], grid.to(image.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return values.reshape(image.shape[0], *uv.shape[:-1])
