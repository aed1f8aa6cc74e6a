"""Surface normals of depth images, to be held against the normals that surfels render."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def _camera_points(depth: Tensor, Ks: Tensor) -> Tensor:
    """Camera-space points [C,H,W,3] of the pixel centres of z-depth images [C,H,W,1]."""
    height, width = depth.shape[1:3]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([xs, ys], dim=-1).to(depth) + 0.5
    focal, center = torch.stack([Ks[:, 0, 0], Ks[:, 1, 1]], dim=-1), Ks[:, :2, 2]
    slopes = (pixels - center[:, None, None]) / focal[:, None, None]
    return torch.cat([slopes * depth, depth], dim=-1)


def normals_from_depth(
    depth: Float[Tensor, "C H W 1"], viewmats: Float[Tensor, "C 4 4"], Ks: Float[Tensor, "C 3 3"]
) -> Float[Tensor, "C H W 3"]:
    """Unit normals in world space, towards the camera, from central differences (Huang et al. 2024, Sec. 5, Eq. 15).

    Zero on the outermost ring of pixels and where the depth spans no surface, as where it is 0 all around. Next to a
    hole or a jump in depth the difference reaches across it: weigh by alpha.

    Args:
        depth: z-depth; what is accumulated has to be divided by alpha before.
        viewmats: World-to-camera, OpenCV axes.
        Ks: Intrinsics in pixels, pixel centres at +0.5; skew is ignored.
    """
    if min(depth.shape[1:3]) < 3:
        return depth.new_zeros(*depth.shape[:3], 3)
    # Differences are taken in camera space: far from the world's origin float32 would lose them.
    points = _camera_points(depth, Ks)
    right = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    across = torch.linalg.cross(down, right)
    # Normalising nothing would send a gradient of 1 / eps into the neighbours of a hole.
    flat = (across.detach() == 0).all(-1, keepdim=True)
    unit = torch.nn.functional.normalize(torch.where(flat, 1.0, across), dim=-1, eps=1e-30)
    world = torch.where(flat, 0.0, unit) @ viewmats[:, None, :3, :3]
    return torch.nn.functional.pad(world, (0, 0, 1, 1, 1, 1))
