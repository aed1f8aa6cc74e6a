"""Which finished picture shows what a view sees, and how it is laid beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.refiner import GuideImage
from closeup_ns.refine.sizes import Tile, cut, resized
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.view import View


def guide_distances(
    views: Sequence[View], renders: Sequence[Rendered], guides: Sequence[GuideImage]
) -> Float[Tensor, "views guides"]:
    """How differently a guide sees what a view sees, radians (CPU, float64): the angle between the two optical axes,
    plus the distance between the two cameras as it looks from the view's median depth.

    Both parts are angles, so nothing has to be known about the scene's units. Infinite where a camera is not finite.
    """
    here = torch.stack([view.c2w for view in views]).double().cpu()
    there = torch.stack([guide.view.c2w.double().cpu() for guide in guides])
    depth = torch.tensor([_median_depth(render) for render in renders], dtype=torch.float64)
    apart = torch.cdist(here[:, :3, 3], there[:, :3, 3], compute_mode="donot_use_mm_for_euclid_dist")
    turned = torch.acos((here[:, :3, 2] @ there[:, :3, 2].T).clamp(-1, 1))
    return torch.nan_to_num(torch.atan2(apart, depth[:, None]) + turned, nan=torch.inf)


def _median_depth(render: Rendered) -> float:
    """Of what is mostly opaque; 1 where nothing is."""
    seen = render.depth[(render.alpha > 0.5) & render.depth.isfinite() & (render.depth > 0)]
    return float(seen.median()) if seen.numel() else 1.0


def contained(image: Float[Tensor, "C h w"], height: int, width: int) -> Float[Tensor, "C height width"]:
    """``image`` as large as fits into ``height`` x ``width``, never squashed; below or beside it goes on mirrored."""
    scale = min(height / image.shape[-2], width / image.shape[-1])
    rows = min(height, max(1, round(image.shape[-2] * scale)))
    columns = min(width, max(1, round(image.shape[-1] * scale)))
    return cut(resized(image, rows, columns), Tile(0, 0, height, width))
