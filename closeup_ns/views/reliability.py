"""Which pixels of a close-up view are backed by real photographs (paper, section 4.2; Xia et al., AAAI 2025, "[33]").

Two products, never mixed:

- *dense*: pixels whose rendered geometry agrees with at least one photograph's geometry. The refiner's mask.
- *sparse*: pixels that a photograph's own pixel lands on, whose colour another photograph confirms. The loss's pixels.

[33] accepts a depth that is within 5% of the depth seen from the *far* photograph: at 27x zoom that is 135% of the near
distance, so the test says nothing. A reprojection test is added in the close-up's own pixels. Unlike
[33]'s code, points behind the camera never win the z-buffer, and among equals the sharpest photograph wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup_ns.views.view import View
from closeup_ns.views.warp import MIN_DEPTH, pixel_grid, sample, transfer_matrix

_BLOCK_ELEMENTS = 500_000
"""Observations x pixels held at once while blending: bounds the memory, and small enough to stay in the cache."""


@dataclass
class Observation:
    """A real photograph and the geometry behind it. Generated images do not belong here."""

    view: View
    """Camera of the photograph, at the size of ``color``."""
    color: Float[Tensor, "3 H W"]
    """The photograph, in [0, 1]."""
    depth: Float[Tensor, "H W"]
    """The current model's z-depth rendered from ``view``; 0 where nothing is rendered or no scene is photographed."""


DEPTH_REL = 0.05
"""Largest depth difference, as a share of the depth (the 5% of [33])."""
COLOR = 0.1
"""Largest colour difference per channel, on a 0 to 1 scale, between two photographs that agree."""
ALPHA = 0.5
"""Least accumulated opacity of the close-up's render."""
NEAR = 1e-4
"""Points closer to a camera than this (world units) are not seen by it."""


@dataclass
class ReliablePixels:
    """The pixels of one view that photographs back, and what the photographs say there."""

    dense: Bool[Tensor, "H W"]
    """Geometry agrees with at least one photograph."""
    sparse: Bool[Tensor, "H W"]
    """A real pixel lands here and another photograph agrees with its colour."""
    color: Float[Tensor, "3 H W"]
    """Real colour where ``sparse``, from the photograph with the smallest footprint; 0 elsewhere."""
    blended: Float[Tensor, "3 H W"]
    """Robust blend of the real colours of all agreeing photographs where ``dense``; 0 elsewhere."""
    support: Int[Tensor, "H W"]
    """Number of photographs whose geometry agrees."""
    footprint: Float[Tensor, "H W"]
    """Where ``sparse``, how many pixels of the view one pixel of the photograph covers in each direction (about the
    zoom): ``color`` is an average over as many, and says nothing about finer detail. 1 elsewhere."""


def reliable_pixels(
    view: View,
    depth: Float[Tensor, "H W"],
    alpha: Float[Tensor, "H W"],
    observations: Sequence[Observation],
) -> ReliablePixels:
    """Find the pixels of ``view`` that ``observations`` back (sections 4.2, 4.3.4; papers.md 1.5).

    Args:
        view: the close-up, at the size of ``depth``.
        depth: z-depth [H, W] rendered from ``view``; 0 where nothing is rendered.
        alpha: accumulated opacity [H, W] in [0, 1].
        observations: real photographs with their depth from the same model; sizes may differ.
    """
    size = (view.height, view.width)
    solid = (alpha > ALPHA) & (depth > NEAR)
    splat = _splat(view, observations, depth)

    support = torch.zeros(view.height * view.width, dtype=torch.int64, device=depth.device)
    agreeing = torch.zeros_like(support)
    blended = depth.new_zeros(3, view.height * view.width)
    transfers = [(_transfer(view, o.view, depth), _transfer(o.view, view, depth)) for o in observations]
    pixels = solid.flatten().nonzero()[:, 0]
    for block in pixels.split(_BLOCK_ELEMENTS // len(observations)) if observations else ():
        support[block], agreeing[block], blended[:, block] = _gather(view, depth, block, observations, transfers, splat)
    support, agreeing = support.reshape(size), agreeing.reshape(size)
    dense = support > 0
    sparse = ((splat.depth - depth).abs() <= DEPTH_REL * depth) & (agreeing > 0)
    return ReliablePixels(
        dense=dense,
        sparse=sparse,
        color=splat.color * sparse,
        blended=blended.reshape(3, *size) * dense,
        support=support,
        footprint=torch.where(sparse, splat.footprint * _focal(view).to(depth) / depth, 1.0),
    )


@dataclass
class _Splat:
    """The nearest real pixels, z-buffered in the close-up (forward warp)."""

    depth: Float[Tensor, "H W"]
    """Infinite where no pixel lands."""
    color: Float[Tensor, "3 H W"]
    source: Int[Tensor, "H W"]
    footprint: Float[Tensor, "H W"]
    """Side of the photograph's pixel on the surface, world units."""


def _splat(view: View, observations: Sequence[Observation], like: Tensor) -> _Splat:
    """Forward-warp every photograph's pixels into ``view``.

    Two sweeps, so that memory does not grow with the number of photographs: the first fills the z-buffer, the second
    picks, within `DEPTH_REL` of the front, the pixel with the smallest footprint on the surface. Ties go to the
    earlier photograph and the earlier pixel, so the result does not depend on scheduling.
    """
    count = view.height * view.width
    front = like.new_full((count,), torch.inf)
    for observation in observations:
        _, hit, z, _ = _landed(view, observation)
        front.scatter_reduce_(0, hit, z, "amin")

    best = torch.full_like(front, torch.inf)
    color = like.new_zeros(3, count)
    source = torch.full((count,), -1, dtype=torch.int64, device=like.device)
    for index, observation in enumerate(observations):
        pixel, hit, z, footprint = _landed(view, observation)
        visible = z <= front[hit] * (1.0 + DEPTH_REL)
        pixel, hit, footprint = pixel[visible], hit[visible], footprint[visible]
        smallest = torch.full_like(front, torch.inf).scatter_reduce_(0, hit, footprint, "amin")
        winner = (footprint <= smallest[hit]) & (footprint < best[hit])
        pixel, hit = pixel[winner], hit[winner]
        first = torch.full_like(source, observation.depth.numel()).scatter_reduce_(0, hit, pixel, "amin")
        won = first < observation.depth.numel()
        color[:, won] = observation.color.reshape(3, -1)[:, first[won]].to(color)
        best = torch.where(won, smallest, best)
        source[won] = index
    size = (view.height, view.width)
    return _Splat(front.reshape(size), color.reshape(3, *size), source.reshape(size), best.reshape(size))


def _landed(view: View, observation: Observation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels of a photograph that fall into ``view``: their index, the pixel they hit, z-depth there, and footprint."""
    there, depth = observation.view, observation.depth
    matrix = _transfer(there, view, depth)
    column = torch.arange(there.width, device=depth.device, dtype=depth.dtype) + 0.5
    row = (torch.arange(there.height, device=depth.device, dtype=depth.dtype) + 0.5)[:, None]
    x, y, z = (torch.addcmul(m[3], depth, m[0] * column + (m[1] * row + m[2])) for m in matrix)
    # The divisions wait until the few pixels that land are known: in a close-up one in zoom squared.
    lands = (z > NEAR) & (depth > NEAR) & (x >= 0) & (y >= 0)
    lands &= (x < view.width * z) & (y < view.height * z)
    pixel = lands.flatten().nonzero()[:, 0]
    z = z.flatten()[pixel]
    u = (x.flatten()[pixel] / z).long().clamp_max(view.width - 1)
    v = (y.flatten()[pixel] / z).long().clamp_max(view.height - 1)
    return pixel, v * view.width + u, z, depth.flatten()[pixel] / _focal(there)


def _gather(
    view: View,
    depth: Tensor,
    block: Tensor,
    observations: Sequence[Observation],
    transfers: Sequence[tuple[Tensor, Tensor]],
    splat: _Splat,
) -> tuple[Tensor, Tensor, Tensor]:
    """For the pixels ``block`` [p]: how many photographs agree in geometry, how many also in colour, and the blend."""
    here = pixel_grid(view.height, view.width, depth.device, depth.dtype).reshape(-1, 2)[block].T
    lifted = _lift(here, depth.flatten()[block])
    splat_color, splat_source = splat.color.reshape(3, -1)[:, block], splat.source.flatten()[block]

    colors = depth.new_zeros(len(observations), 3, block.numel())
    weights = depth.new_zeros(len(observations), block.numel())
    agreeing = torch.zeros_like(block)
    for index, observation in enumerate(observations):
        kept, uv, worth = _agreement(view, here, lifted, observation, transfers[index])
        color = sample(observation.color, uv.T).to(depth)
        colors[index].index_copy_(1, kept, color)
        weights[index].index_copy_(0, kept, worth)
        matches = (color - splat_color.index_select(1, kept)).abs().amax(0) < COLOR
        # Confirmed by another photograph than the one it came from. [33] lets a colour confirm itself.
        matches &= splat_source.index_select(0, kept) != index
        agreeing.index_add_(0, kept, matches.long())
    return (weights > 0).sum(0), agreeing, _blend(colors, weights, COLOR)


def _agreement(
    view: View,
    here: Tensor,
    lifted: Tensor,
    observation: Observation,
    transfers: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [m] of the pixels whose surface ``observation`` sees too, where it sees them [2, m], and its worth there.

    ``here`` [2, p] are the pixels, ``lifted`` [4, p] the same with their depth (`_lift`), ``transfers`` the
    matrices from ``view`` to the photograph and back. The worth falls with the
    square of the photograph's footprint on the surface and with the reprojection error.
    """
    there = observation.view
    x, y, z = transfers[0] @ lifted
    lands = (z > NEAR) & (x >= 0) & (y >= 0) & (x < there.width * z) & (y < there.height * z)
    kept = lands.nonzero()[:, 0]
    x, y, z = torch.stack([x, y, z]).index_select(1, kept)
    uv = torch.stack([x, y]) / z
    seen_depth = sample(observation.depth[None], uv.T, "nearest")[0].to(z)
    close = (((seen_depth - z).abs() <= DEPTH_REL * z) & (seen_depth > NEAR)).nonzero()[:, 0]
    kept, uv, z, seen_depth = _pick(close, kept, uv, z, seen_depth)

    back = transfers[1] @ _lift(uv, seen_depth)
    x, y = back[:2] / back[2].clamp_min(MIN_DEPTH) - here.index_select(1, kept)
    error = torch.hypot(x, y)
    magnification = lifted[2].index_select(0, kept) * _focal(there) / (z * _focal(view))
    tolerance = 0.5 / magnification + 1.0
    worth = torch.exp(-0.5 * (error / tolerance).clamp_max(4.0).square()) * magnification.square()
    passed = ((back[2] > NEAR) & (error <= tolerance)).nonzero()[:, 0]
    kept, uv, worth = _pick(passed, kept, uv, worth)
    return kept, uv, worth


def _pick(index: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The same columns of every tensor; the whole where all are picked, which is common and then free."""
    if index.numel() == tensors[0].shape[-1]:
        return tensors
    return tuple(tensor.index_select(-1, index) for tensor in tensors)


def _lift(uv: Tensor, depth: Tensor) -> Tensor:
    """Pixels [2, p] with their depth [p] as (u d, v d, d, 1) [4, p], what `transfer_matrix` multiplies."""
    return torch.stack([uv[0] * depth, uv[1] * depth, depth, torch.ones_like(depth)])


def _transfer(source: View, destination: View, like: Tensor) -> Tensor:
    return transfer_matrix(source.K, source.c2w, destination.K, destination.c2w).to(like)


def _blend(colors: Tensor, weights: Tensor, limit: float) -> Tensor:
    """Weighted mean [3, p] of ``colors`` [n, 3, p] without those further than ``limit`` from the weighted median.

    The median is taken of the brightness, and its colour is the reference for all three channels.
    """
    brightness = colors.sum(1).T.contiguous()
    brightness, order = brightness.sort(dim=1, stable=True)
    running = weights.T.gather(1, order).cumsum(1)
    middle = (running >= 0.5 * running[:, -1:]).to(torch.uint8).argmax(1)
    chosen = order.gather(1, middle[:, None])[:, 0]
    reference = colors.gather(0, chosen.expand(1, 3, -1))
    weights = weights * ((colors - reference).abs().amax(1) <= limit)
    return (colors * weights[:, None]).sum(0) / weights.sum(0).clamp_min(torch.finfo(weights.dtype).tiny)


def _focal(view: View) -> Tensor:
    """Focal length in pixels; the geometric mean of the two axes."""
    return (view.K[0, 0] * view.K[1, 1]).sqrt()
