"""How much of what one view sees another sees too: coverage, similarity, distance discount (4.3.1, 4.3.2, App. C).

Everything is a fraction in [0, 1] measured on small depth maps with a visibility test, so that a wall between two
cameras counts. Batched over view pairs: 300 x 300 pairs are a few seconds on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.views.view import View
from closeup_ns.views.warp import pixel_grid, transfer_matrix

_CHUNK_ELEMENTS = 1_000_000
"""View pairs x pixels held at once: bounds the memory, and small enough to stay mostly in the cache."""
_NEAR = 1e-6
_DISCOUNT_LIMIT = 0.95
"""At +-1 the paper's discount is 0 and a view at either end of the shell could never be chosen."""


@dataclass(frozen=True, eq=False)
class DepthViews:
    """Views with their depth maps as one batch; smaller maps are padded with 0 (nothing seen) to the largest."""

    K: Float[Tensor, "n 3 3"]
    """Intrinsics at the size of the depth maps."""
    c2w: Float[Tensor, "n 4 4"]
    """Poses, OpenCV axes."""
    size: Int[Tensor, "n 2"]
    """Width and height of each map within the padding."""
    depth: Float[Tensor, "n H W"]
    """z-depth; 0 where nothing is rendered and in the padding."""

    def __len__(self) -> int:
        return self.depth.shape[0]

    def __getitem__(self, index: Tensor | slice) -> DepthViews:
        """The views at ``index`` (a slice, or a LongTensor)."""
        return DepthViews(self.K[index], self.c2w[index], self.size[index], self.depth[index])

    def pixel_mask(self) -> Bool[Tensor, "n H W"]:
        """True for real pixels, False for padding."""
        height, width = self.depth.shape[1:]
        columns = torch.arange(width, device=self.depth.device)
        rows = torch.arange(height, device=self.depth.device)
        return (columns < self.size[:, 0, None, None]) & (rows[:, None] < self.size[:, 1, None, None])


def stack_depths(views: Sequence[View], depths: Sequence[Float[Tensor, "H W"]]) -> DepthViews:
    """Batch ``views``, whose sizes may differ (portrait and landscape), with one depth map each, of the view's size.

    Raises:
        CloseupError: no views.
    """
    if not views:
        raise CloseupError("there are no views whose depths could be compared")
    padded = depths[0].new_zeros(len(views), max(v.height for v in views), max(v.width for v in views))
    for row, (view, depth) in enumerate(zip(views, depths, strict=True)):
        padded[row, : view.height, : view.width] = torch.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0)
    size = torch.tensor([[v.width, v.height] for v in views], device=padded.device)
    return DepthViews(torch.stack([v.K for v in views]), torch.stack([v.c2w for v in views]), size, padded)


def shared_fraction(
    sources: DepthViews,
    destinations: DepthViews,
    weights: Float[Tensor, "n_src H W"] | None = None,
    depth_rel: float = 0.05,
    stride: int = 1,
) -> Float[Tensor, "n_src n_dst"]:
    """Fraction of each source's pixels that each destination sees (section 4.3.1).

    A pixel is seen if its surface point projects in front of the destination, inside its image, and the
    destination's depth there differs by at most ``depth_rel`` of the point's. Pixels without depth are never seen
    but count in the fraction.

    Args:
        sources, destinations: views with depth.
        weights: importance of each source pixel (padding is ignored); uniform if None.
        depth_rel: tolerance of the visibility test.
        stride: test every ``stride``-th source row and column only; the destination keeps its full resolution.
    """
    grid, depth, weight = _source_pixels(sources, weights, stride)
    total = weight.sum(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    weight = weight * (depth > 0)
    lifted = torch.stack([grid[:, 0] * depth, grid[:, 1] * depth, depth, torch.ones_like(depth)], dim=1)

    n_src, n_dst, pixels = len(sources), len(destinations), depth.shape[1]
    result = depth.new_empty(n_src, n_dst)
    dst_step = max(1, min(n_dst, _CHUNK_ELEMENTS // pixels))
    src_step = max(1, _CHUNK_ELEMENTS // (pixels * dst_step))
    for first in range(0, n_src, src_step):
        rows = slice(first, first + src_step)
        for start in range(0, n_dst, dst_step):
            chunk = destinations[start : start + dst_step]
            matrix = transfer_matrix(sources.K[rows, None], sources.c2w[rows, None], chunk.K[None], chunk.c2w[None])
            seen = _visible(lifted[rows], matrix, chunk, depth_rel)
            result[rows, start : start + dst_step] = torch.einsum("sdp,sp->sd", seen.to(weight.dtype), weight[rows])
    return result / total


def center_weights(views: DepthViews) -> Float[Tensor, "n H W"]:
    """A Gaussian of a quarter of the short side around each image's centre; 0 in the padding (footnote 3)."""
    height, width = views.depth.shape[1:]
    grid = pixel_grid(height, width, views.depth.device, views.depth.dtype)
    size = views.size.to(grid)[:, None, None]
    scaled = (grid - size / 2) / (0.25 * size.amin(-1, keepdim=True))
    return torch.exp(-0.5 * scaled.square().sum(-1)) * views.pixel_mask()


def coverage(frontier: DepthViews, known: DepthViews) -> Float[Tensor, "n_known"]:
    """How much of the frontier views each known view sees: the w of Eq. 5, in [0, 1].

    Counted on the frontier's pixels with weight at their centre, and averaged over the frontier views. (Counted on
    the known views' pixels, a distant view would score almost nothing; see papers.md 6.3, point 9.)
    """
    return shared_fraction(frontier, known, center_weights(frontier)).mean(0)


def similarity(views: DepthViews, stride: int = 2) -> Float[Tensor, "n n"]:
    """How much pairs of views share: the E of Eq. 5 with a zero diagonal, symmetric, in [0, 1].

    The mean of the two directed fractions, so that a close view and a distant one count alike.
    """
    directed = shared_fraction(views, views, stride=stride)
    return (0.5 * (directed + directed.T)).fill_diagonal_(0.0)


def discount_factor(offset: Tensor) -> Tensor:
    """Appendix C's beta for views ``offset`` from the middle of the shell: -1 at the frontier, +1 at the known views.

    (1 - d^2)^2 / (2 (1 + d^2)), which favours the middle of the bridge (Eq. 13).
    """
    square = offset.square()
    return (1.0 - square).square() / (2.0 * (1.0 + square))


def distance_discount(distances: Float[Tensor, "*n"], near: float, far: float) -> Float[Tensor, "*n"]:
    """Appendix C's beta for views at ``distances`` from the target, between frontier (``near``) and known views.

    The offset from the middle is measured in half the shell's thickness, as Eq. 12 needs, and held within 0.95.

    Raises:
        CloseupError: ``near`` is not between 0 and ``far``.
    """
    if not 0.0 < near < far:
        raise CloseupError(f"the frontier's distance {near} must be positive and below the known views' {far}")
    offset = (distances - 0.5 * (near + far)) / (0.5 * (far - near))
    return discount_factor(offset.clamp(-_DISCOUNT_LIMIT, _DISCOUNT_LIMIT))


def _source_pixels(
    sources: DepthViews, weights: Tensor | None, stride: int
) -> tuple[Float[Tensor, "n 2 p"], Float[Tensor, "n p"], Float[Tensor, "n p"]]:
    """Coordinates, depth and weight of the source pixels that are tested; weight 0 in the padding."""
    height, width = sources.depth.shape[1:]
    # Starting half a stride in keeps the sample centred on the image.
    rows = slice(min(stride // 2, height - 1), None, stride)
    columns = slice(min(stride // 2, width - 1), None, stride)
    mask = sources.pixel_mask()[:, rows, columns].flatten(1)
    depth = sources.depth[:, rows, columns].flatten(1)
    weight = depth.new_ones(()) if weights is None else weights[:, rows, columns].flatten(1).to(depth)
    grid = pixel_grid(height, width, depth.device, depth.dtype)[rows, columns].reshape(-1, 2).T
    return grid.expand(len(sources), -1, -1), depth, weight * mask


def _visible(lifted: Tensor, matrix: Tensor, destinations: DepthViews, depth_rel: float) -> Bool[Tensor, "s d p"]:
    """Which of the source points ``lifted`` [s, 4, p] the destinations see, given ``matrix`` [s, d, 3, 4]."""
    n_src, n_dst = matrix.shape[:2]
    projected = torch.bmm(matrix.reshape(n_src, n_dst * 3, 4), lifted).reshape(n_src, n_dst, 3, -1)
    x, y, z = projected.unbind(2)
    front = z > _NEAR
    size = destinations.size.to(z)[None, :, :, None]
    inverse = z.clamp_min(_NEAR).reciprocal()
    u, v = x * inverse, y * inverse
    landed = front & (u >= 0) & (v >= 0) & (u < size[:, :, 0]) & (v < size[:, :, 1])
    height, width = destinations.depth.shape[1:]
    column = u.clamp(0, width - 1).int()
    row = v.clamp(0, height - 1).int()
    map_start = torch.arange(n_dst, device=z.device, dtype=torch.int32)[:, None] * (height * width)
    there = destinations.depth.flatten()[(row * width + column + map_start).flatten()].reshape(z.shape)
    return landed & ((there - z).abs() <= depth_rel * z)
