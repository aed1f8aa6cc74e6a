"""Where Gaussians start when a capture has no point cloud: in what the cameras see, and not in a cube around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from closeup_ns.data.pictures import to_bytes
from closeup_ns.views.view import View
from closeup_ns.views.warp import unproject

DEFAULT_NEAR, DEFAULT_FAR = 0.3, 4.0
"""Depth range, as multiples of the cameras' reach, where a capture does not state one."""


def frustum_points(
    views: Sequence[View],
    photographs: Sequence[Float[Tensor, "H W 3"]],
    bounds: Float[Tensor, "n 2"] | None,
    count: int,
    generator: torch.Generator,
    shown: Sequence[Bool[Tensor, "H W"] | None] | None = None,
) -> tuple[Float[Tensor, "count 3"], UInt8[Tensor, "count 3"]]:
    """Random points in the cameras' frusta with the colours of the pixels they lie behind.

    Depths are uniform in disparity between the near and far bound of each photograph, so that near content, which
    covers more pixels, gets more points.

    Args:
        views: the training cameras.
        photographs: their images, in [0, 1].
        bounds: nearest and farthest z-depth per photograph in world units (LLFF keeps them), or None.
        count: number of points.
        generator: seeded; the same seed gives the same points.
        shown: pixels that show the scene, per photograph (None: all); no point is put behind the others.
    """
    if bounds is None:
        centers = torch.stack([view.position for view in views]).float()
        reach = float((centers - centers.mean(0)).norm(dim=-1).max().clamp_min(1e-3))
        bounds = torch.tensor([[DEFAULT_NEAR * reach, DEFAULT_FAR * reach]]).expand(len(views), 2)
    each = -(-count // len(views))
    points, colors = [], []
    masks = shown or [None] * len(views)
    for view, photograph, mask, (near, far) in zip(views, photographs, masks, bounds.float().cpu().tolist()):
        uv = _places(view, mask, each, generator)
        disparity = torch.rand(each, generator=generator)
        depth = 1 / (disparity / near + (1 - disparity) / far)
        points.append(unproject(view.to("cpu"), uv.to(view.K.dtype), depth.to(view.K.dtype)))
        column, row = uv.long().unbind(-1)
        colors.append(to_bytes(photograph.cpu()[row, column]))
    return torch.cat(points)[:count].float(), torch.cat(colors)[:count]


def _places(
    view: View, mask: Bool[Tensor, "H W"] | None, count: int, generator: torch.Generator
) -> Float[Tensor, "count 2"]:
    """Random places in an image, where ``mask`` allows; anywhere in one that shows nothing at all."""
    pixels = None if mask is None else mask.cpu().nonzero().flip(-1)
    if pixels is None or not len(pixels):
        return torch.rand(count, 2, generator=generator) * torch.tensor([view.width, view.height])
    chosen = torch.randint(len(pixels), (count,), generator=generator)
    return pixels[chosen] + torch.rand(count, 2, generator=generator)
