"""Which part of each reference a tile's pass is shown, and at which scale.

All pictures of a joint pass have one size. Squashing a reference would change its shapes, and shrinking a photograph of
the whole scene to the network's 512 pixels would throw away the detail that it is shown for. So each reference is cut:
a window of the tile's size, around what it shares with the tile, as sharp as the window has room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.imaging.sizes import Tile, cut, resized
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.refine.results import SOLID_ALPHA
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from closeup_ns.views.warp import inside, pixel_grid, project, sample, unproject

POINTS_PER_SIDE = 24
"""A tile's surface is looked at on a grid of this many pixels each way."""
_LEAST_SHARE = 0.02
"""A reference that has fewer of the points in its picture does not show the tile: some splats are in front of all."""
_OUTLIERS = 0.02
"""Share of the points left out at each end of the box around them: depth at silhouettes is a blend."""


@dataclass(frozen=True)
class Window:
    """A cut from a scaled picture; it may be larger than the picture."""

    scale: float
    """Pixels of the window per pixel of the picture, the same in both directions."""
    top: int
    """First row, in pixels of the scaled picture; negative where the window begins above it."""
    left: int
    """First column, likewise."""
    height: int
    width: int


def surface_points(view: View, render: Rendered, tile: Tile) -> Float[Tensor, "n 3"]:
    """World points on a grid over what ``tile`` shows of a render; none where nothing solid is rendered."""
    rows = (min(tile.top, view.height - 1), min(tile.top + tile.height, view.height))
    columns = (min(tile.left, view.width - 1), min(tile.left + tile.width, view.width))
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    side = POINTS_PER_SIDE
    unit = pixel_grid(min(side, height), min(side, width), render.depth.device, render.depth.dtype)
    share = unit / unit.new_tensor([min(side, width), min(side, height)])
    uv = share * share.new_tensor([width, height]) + share.new_tensor([columns[0], rows[0]])
    uv = uv.reshape(-1, 2)
    depth = sample(render.depth[None], uv, "nearest")[0]
    alpha = sample(render.alpha[None], uv, "nearest")[0]
    solid = (alpha >= SOLID_ALPHA) & (depth > 0) & depth.isfinite()
    return unproject(view.to(uv.device, uv.dtype), uv[solid], depth[solid])


def shown_share(view: View, points: Float[Tensor, "n 3"]) -> float:
    """Share of ``points`` that are within the picture of ``view``; what hides them is not known here."""
    if len(points) == 0:
        return 0.0
    return float(inside(view, *project(view.to(points.device, points.dtype), points)).float().mean())


def reference_window(view: View, points: Float[Tensor, "n 3"], height: int, width: int) -> Window:
    """The window of ``height`` x ``width`` pixels of a reference that shows ``points`` at the finest scale.

    The scale is the largest at which the box around the points fits. It does not exceed that of the reference's own
    pixels, unless the whole picture is smaller than the window: then it may grow until it fills the window. A reference
    that does not show the points gives its whole picture.
    """
    fit = min(height / view.height, width / view.width)
    fill = max(height / view.height, width / view.width)
    center = points.new_tensor([view.width / 2, view.height / 2])
    scale = fit
    if shown_share(view, points) >= _LEAST_SHARE:
        uv, z = project(view.to(points.device, points.dtype), points)
        low, high = _box(uv[inside(view, uv, z)])
        center = (low + high) / 2
        extent = (high - low).clamp_min(1.0).tolist()
        scale = max(fit, min(width / extent[0], height / extent[1], max(1.0, fill)))
    column, row = (center * scale).tolist()
    return Window(
        scale,
        _start(row, height, round(view.height * scale)),
        _start(column, width, round(view.width * scale)),
        height,
        width,
    )


def _box(uv: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
    """Corners of the box around the points, outliers left out; points spread evenly give their own box."""
    ends = uv.new_tensor([_OUTLIERS, 1.0 - _OUTLIERS])
    low, high = torch.quantile(uv, ends, dim=0)
    margin = (high - low) * _OUTLIERS / (1.0 - 2.0 * _OUTLIERS)
    return low - margin, high + margin


def _start(center: float, size: int, length: int) -> int:
    """First pixel of a window of ``size`` around ``center``: within the picture, or the picture within it."""
    if length <= size:
        return -((size - length) // 2)
    return min(max(round(center - size / 2), 0), length - size)


def reference_crop(image: Float[Tensor, "3 H W"], window: Window) -> Float[Tensor, "3 h w"]:
    """What ``window`` shows of ``image`` in [0, 1]; the edge is repeated where it reaches beyond.

    At scale one these are the picture's own pixels. Shrinking averages; enlarging is bilinear.
    """
    height, width = image.shape[-2:]
    if window.scale > 1.0:
        grid = pixel_grid(window.height, window.width, image.device, image.dtype)
        return sample(image, (grid + grid.new_tensor([window.left, window.top])) / window.scale)
    scaled = resized(image, max(1, round(height * window.scale)), max(1, round(width * window.scale)))
    return cut(scaled, Tile(window.top, window.left, window.height, window.width), "replicate")


def reference_crops(
    guides: Sequence[GuideImage], points: Float[Tensor, "n 3"], height: int, width: int
) -> Float[Tensor, "R 3 height width"]:
    """The references' rows of a joint pass whose targets' tile shows ``points``; on the points' device, in float32."""
    crops = []
    for guide in guides:
        image = torch.nan_to_num(guide.image.to(points.device, torch.float32)).clamp(0, 1).permute(2, 0, 1)
        crops.append(reference_crop(image, reference_window(guide.view, points, height, width)))
    return torch.stack(crops)
