"""Surface normals of depth images, to be held against the normals that surfels render."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad


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
    height, width = depth.shape[1:3]
    if min(height, width) < 3:
        return depth.new_zeros(*depth.shape[:3], 3)
    across = torch.stack(_across(depth[..., 0], Ks), dim=1)
    squared = across.square().sum(1, keepdim=True)
    # Normalising nothing would send a gradient of 1 / 0 into the neighbours of a hole: nothing stays, and gets none.
    spans = squared > 0
    unit = across * torch.where(spans, torch.where(spans, squared, 1.0).rsqrt(), 0.0)
    world = viewmats[:, :3, :3].mT @ unit.flatten(2)
    return pad(world.unflatten(2, (height - 2, width - 2)), (1, 1, 1, 1)).permute(0, 2, 3, 1)


def _across(depth: Float[Tensor, "C H W"], Ks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inner pixels' normals in camera space, of any length: the cross product of the two central differences.

    A point is depth * (x, y, 1) with x, y the pixel's slopes. With the horizontal neighbours' difference a and sum s
    and the vertical ones' b and t, downwards x rightwards is (t a / fy, s b / fx, -(x t a / fy + y s b / fx +
    s t / (fx fy))), here times fx fy. Written out like this it costs a quarter, and nothing large cancels.
    """
    fx, fy, cx, cy = (Ks[:, row, column, None, None] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
    height, width = depth.shape[1:]
    x = (torch.arange(1, width - 1).to(depth) + 0.5 - cx) / fx
    y = (torch.arange(1, height - 1).to(depth)[:, None] + 0.5 - cy) / fy
    left, right = depth[:, 1:-1, :-2], depth[:, 1:-1, 2:]
    above, below = depth[:, :-2, 1:-1], depth[:, 2:, 1:-1]
    s, t = left + right, above + below
    across_x, across_y = fx * (t * (right - left)), fy * (s * (below - above))
    return across_x, across_y, -(x * across_x + y * across_y + s * t)
