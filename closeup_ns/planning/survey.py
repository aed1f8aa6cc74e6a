"""What the current model shows from a set of views, on small depth maps: free space, and whether the target is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.views.overlap import DepthViews, stack_depths
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View

DEPTH_SIZE = 128
"""Long side, in pixels, of the depth maps that overlap and free space are measured on."""
ALPHA = 0.5
"""Least opacity for a rendered depth to count."""
DEPTH_REL = 0.1
"""A surface is at a point if its depth differs from the point's by at most this share."""
HIDDEN_REL = 0.25
"""A point is hidden where the rendered depth is smaller than its own by more than this share."""
_NEAR = 1e-6


def survey(views: Sequence[View], render: Renderer) -> DepthViews:
    """Depth of every view at `DEPTH_SIZE` pixels; 0 where the render is less opaque than `ALPHA`."""
    small = [view.resized(DEPTH_SIZE) for view in views]
    depths = []
    for view in small:
        rendered = render(view)
        depths.append((rendered.depth * (rendered.alpha > ALPHA)).to(view.c2w))
    return stack_depths(small, depths)


@dataclass(frozen=True, eq=False)
class PointVisibility:
    """How views see one point."""

    in_frame: Bool[Tensor, "n"]
    """The point projects into the image, in front of the camera."""
    z: Float[Tensor, "n"]
    """z-depth of the point."""
    depth: Float[Tensor, "n"]
    """Rendered z-depth there (median of the 3 x 3 pixels that have one); 0 where nothing is rendered."""
    distance: Float[Tensor, "n"]
    """Distance from the camera's centre."""

    def hidden(self) -> Bool[Tensor, "n"]:
        """In the image, but something is in front."""
        return self.in_frame & (self.depth > 0) & (self.depth < self.z * (1.0 - HIDDEN_REL))

    def empty(self) -> Bool[Tensor, "n"]:
        """In the image, but nothing is rendered there."""
        return self.in_frame & (self.depth <= 0)

    def sees(self) -> Bool[Tensor, "n"]:
        """In the image with nothing in front."""
        return self.in_frame & ~self.hidden()

    def agrees(self) -> Bool[Tensor, "n"]:
        """A surface is rendered at the point."""
        return self.in_frame & (self.depth > 0) & ((self.depth - self.z).abs() <= DEPTH_REL * self.z)


def point_visibility(views: DepthViews, point: Float[Tensor, "3"]) -> PointVisibility:
    """Project ``point`` (world) into every view and look up the depth that is rendered there."""
    offset = point.to(views.c2w) - views.c2w[:, :3, 3]
    local = torch.einsum("nij,ni->nj", views.c2w[:, :3, :3], offset)
    z = local[:, 2]
    pixel = torch.einsum("nij,nj->ni", views.K, local)[:, :2] / z.clamp_min(_NEAR)[:, None]
    in_frame = (z > _NEAR) & (pixel >= 0).all(1) & (pixel < views.size.to(pixel)).all(1)

    steps = torch.tensor([-1, 0, 1], device=pixel.device)
    limit = views.size.long()[:, :, None] - 1
    around = (pixel.nan_to_num().clamp(-1e6, 1e6).floor().long()[:, :, None] + steps).clamp_min(0).minimum(limit)
    rows = torch.arange(len(views), device=pixel.device)[:, None, None]
    window = views.depth[rows, around[:, 1, :, None], around[:, 0, None, :]].flatten(1)
    depth = torch.where(window > 0, window, torch.nan).nanmedian(1).values.nan_to_num(nan=0.0)
    return PointVisibility(in_frame, z, depth, offset.norm(dim=1))
