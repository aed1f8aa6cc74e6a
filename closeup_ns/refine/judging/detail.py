"""What an original resolves must survive refinement (issue 15.2).

Where native crops show a surface as finely as the view does, a refined view is compared with them block by block: as a
picture and in its detail alone, moved by up to two pixels, blurred by one or not, at any gain and offset. A block that
looks less like the photographs than the render did has lost what they resolve, and one that hardly looks like them
shows something else (the render may be mush in which letters became dashes): neither is trained on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.refine.imaging.filters import gaussian_blur
from closeup_ns.views.reliability import ReliablePixels

RESOLVED = 1.5
"""A photograph resolves the view where its pixel covers at most this many of the view's in each direction."""
BLOCK = 16
"""Side of a block, pixels: large enough for a letter, and for a correlation."""
BLOCK_SHARE = 0.25
"""Share of a block's pixels on which a pixel of such a photograph must land."""
SHIFT = 2
"""Pixels that a block may be moved by to fit: poses and depths are good to about as much."""
SOFT_SIGMA = 1.0
"""Blur, in pixels, by which a picture may fit better. Photographs off by a pixel blend to something as soft, and
a perfect view of print would seem to lose detail (the demo at 9x: on 21% of its pixels, 5% with this)."""
DETAIL_SIGMA = 2.0
"""Detail is what is left of a picture when it is blurred by this many pixels and subtracted."""
NOISE = 0.01
"""Detail of a smaller standard deviation (of 1) is grain: such a block shows nothing that could be lost."""
MARGIN = 0.1
"""How much lower than the render's a block's correlation with the photographs may be."""
FLOOR = 0.5
"""Least correlation of a block with the photographs, whatever the render had."""


def lost_detail(
    image: Float[Tensor, "H W 3"], render: Float[Tensor, "H W 3"], mask: ReliablePixels
) -> tuple[Bool[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Where photographs resolve the view, and where of that a refined view has lost what they show.

    Args:
        image: the refined view.
        render: the view that it was made from.
        mask: what photographs, native crops among them, say about the view.

    Returns:
        Two masks [H, W], constant over blocks: resolved, and lost.
    """
    height, width = mask.sparse.shape
    fine = mask.sparse & (mask.footprint <= RESOLVED)
    share = F.avg_pool2d(fine.float()[None, None], BLOCK, ceil_mode=True, count_include_pad=False)[0, 0]
    resolved = share >= BLOCK_SHARE
    lost = torch.zeros_like(resolved)
    photographed = mask.blended.mean(0)
    inside = mask.dense.to(photographed)
    refined, before = (_also_soft(picture.mean(-1)) for picture in (image, torch.nan_to_num(render)))
    for sigma in (0.0, DETAIL_SIGMA):
        wanted = _detail(photographed, sigma)
        shown = _spread(wanted, inside) > NOISE
        likeness_before, likeness = (_likeness(_detail(those, sigma), wanted, inside) for those in (before, refined))
        least = (likeness_before - MARGIN).clamp_min(FLOOR)
        lost |= resolved & shown & (likeness < least)
    return _pixels(resolved, height, width), _pixels(lost, height, width)


def _also_soft(picture: Float[Tensor, "H W"]) -> Float[Tensor, "2 H W"]:
    """The picture as it is, and blurred by `SOFT_SIGMA`."""
    return torch.stack([picture, gaussian_blur(picture[None], SOFT_SIGMA)[0]])


def _detail(pictures: Float[Tensor, "*N H W"], sigma: float) -> Float[Tensor, "*N H W"]:
    """The pictures, or what a blur of ``sigma`` takes from each."""
    return pictures if sigma == 0 else pictures - gaussian_blur(pictures, sigma)


def _likeness(
    pictures: Float[Tensor, "N H W"], wanted: Float[Tensor, "H W"], inside: Float[Tensor, "H W"]
) -> Float[Tensor, "h w"]:
    """Correlation of each block with ``wanted``, of the picture and at the shift that fit it best, -1 to 1."""
    tried = [_correlation(picture, wanted, inside) for moved in _moved(pictures) for picture in moved]
    return torch.stack(tried).amax(0)


def fitted_error(picture: Float[Tensor, "C H W"], wanted: Float[Tensor, "C H W"], inside: Bool[Tensor, "H W"]) -> float:
    """Mean squared error on the pixels ``inside``, each block moved and its colours offset as they fit ``wanted`` best.

    A refined view that shows the right detail a pixel or two beside its place, in colours that are a little off, is a
    good one; pixel by pixel it would lose to mush.
    """
    known = inside.to(picture)
    count = _blocks(known)

    def error(moved: Float[Tensor, "C H W"]) -> Float[Tensor, "h w"]:
        parts = [_spread(difference, known).square() for difference in moved - wanted]
        return torch.stack(parts).mean(0)

    best = torch.stack([error(moved) for moved in _moved(picture)]).amin(0)
    return float((best * count).sum() / count.sum())


def _moved(picture: Float[Tensor, "C H W"]) -> Iterator[Float[Tensor, "C H W"]]:
    """The picture moved by up to `SHIFT` pixels along each axis."""
    padded = F.pad(picture[None], [SHIFT] * 4, mode="replicate")[0]
    for row in range(2 * SHIFT + 1):
        for column in range(2 * SHIFT + 1):
            yield padded[:, row : row + picture.shape[1], column : column + picture.shape[2]]


def _correlation(
    one: Float[Tensor, "H W"], other: Float[Tensor, "H W"], inside: Float[Tensor, "H W"]
) -> Float[Tensor, "h w"]:
    """Correlation of two pictures on the pixels ``inside`` each block; 0 where one of them is flat."""
    count = _blocks(inside).clamp_min(1e-6)
    mean_one, mean_other = _blocks(one * inside) / count, _blocks(other * inside) / count
    both = _blocks(one * other * inside) / count - mean_one * mean_other
    spread = _spread(one, inside) * _spread(other, inside)
    return torch.where(spread > 1e-8, both / spread.clamp_min(1e-8), 0.0)


def _spread(picture: Float[Tensor, "H W"], inside: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
    """Standard deviation of each block on the pixels ``inside``."""
    count = _blocks(inside).clamp_min(1e-6)
    mean = _blocks(picture * inside) / count
    return (_blocks(picture.square() * inside) / count - mean.square()).clamp_min(0).sqrt()


def _blocks(picture: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
    """Sum over each block; those at the right and lower border may be smaller."""
    return F.avg_pool2d(picture[None, None], BLOCK, ceil_mode=True, divisor_override=1)[0, 0]


def _pixels(blocks: Bool[Tensor, "h w"], height: int, width: int) -> Bool[Tensor, "H W"]:
    """Each block's value at its pixels."""
    return blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:height, :width]
