"""For each pixel of a view, whether photographs or generated views show its surface. Measured small, drawn large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from closeup_ns.views.reliability import ALPHA, DEPTH_REL, NEAR, Observation, reliable_pixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from closeup_ns.views.warp import backproject, inside, project, sample

NOTHING, REAL, GENERATED = 0, 1, 2
RELIABLE_TINT = (0.25, 0.9, 0.35)
REAL_TINT = (0.25, 0.55, 1.0)
GENERATED_TINT = (1.0, 0.5, 0.1)
TARGET_TINT = (0.92, 0.24, 0.24)
_STRENGTH, _DIMMED = 0.4, 0.45
_RING, _RING_LINE = 0.025, 0.003
"""Radius of the target's ring and half the width of its line, as shares of the picture's height."""


@dataclass(frozen=True, eq=False)
class GeneratedView:
    """A refined view that the model was trained on."""

    view: View
    depth: Float[Tensor, "H W"]
    """z-depth that the current model renders from it."""
    real: Bool[Tensor, "H W"]
    """Where its colour is a real photograph's."""


@dataclass(frozen=True, eq=False)
class Backing:
    """What backs the pixels of one view."""

    reliable: Bool[Tensor, "h w"]
    """The dense mask of section 4.2: a photograph's geometry agrees."""
    provenance: Int[Tensor, "h w"]
    """``NOTHING``, ``REAL`` or ``GENERATED``."""


def backing(
    view: View, rendered: Rendered, photographs: Sequence[Observation], generated: Sequence[GeneratedView]
) -> Backing:
    """Measure what backs ``view``, at the size of ``rendered``.

    Provenance: generated where a generated view shows the surface and none of those that do has a real colour there;
    otherwise real where one has, or where a photograph's geometry agrees.
    """
    reliable = reliable_pixels(view, rendered.depth, rendered.alpha, photographs).dense
    solid = (rendered.alpha > ALPHA) & (rendered.depth > NEAR)
    points = backproject(view, rendered.depth)
    shown, real = torch.zeros_like(solid), torch.zeros_like(solid)
    for other in generated:
        seen, has_photograph = _seen_by(other, points)
        shown |= seen
        real |= seen & has_photograph
    provenance = torch.full(solid.shape, NOTHING, device=solid.device)
    provenance[solid & (reliable | real)] = REAL
    provenance[solid & shown & ~real] = GENERATED
    return Backing(reliable, provenance)


def _seen_by(other: GeneratedView, points: Float[Tensor, "h w 3"]) -> tuple[Bool[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Where ``other`` shows the surface at ``points``, and where its own pixel there is a photograph's."""
    uv, z = project(other.view, points)
    depth = sample(other.depth[None], uv, "nearest")[0]
    seen = inside(other.view, uv, z) & (depth > 0) & ((depth - z).abs() <= DEPTH_REL * z)
    return seen, sample(other.real[None], uv, "nearest")[0]


def draw(rgb: Float[Tensor, "H W 3"], found: Backing, reliable: bool, provenance: bool) -> Float[Tensor, "H W 3"]:
    """``rgb`` with one overlay or both.

    Reliable pixels are green and all others dimmed. Provenance colours real pixels blue (as on the contact sheet) and
    generated ones orange. With both, provenance gives the colour and reliability the brightness.
    """
    dark = ~found.reliable if reliable else found.provenance == NOTHING
    drawn = torch.where(_enlarged(dark, rgb), rgb * _DIMMED, rgb)
    tints = [(found.provenance == REAL, REAL_TINT), (found.provenance == GENERATED, GENERATED_TINT)]
    for mask, tint in tints if provenance else [(found.reliable, RELIABLE_TINT)]:
        drawn = torch.where(_enlarged(mask, rgb), _tinted(drawn, tint), drawn)
    return drawn


def side_by_side(left: Float[Tensor, "H W 3"], right: Float[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
    """The left half of one picture and the right half of the other, with a line between."""
    middle = left.shape[1] // 2
    joined = torch.cat([left[:, :middle], right[:, middle:]], dim=1)
    joined[:, middle] = 1.0
    return joined


def draw_target(rgb: Float[Tensor, "H W 3"], view: View, point: Float[Tensor, "3"]) -> Float[Tensor, "H W 3"]:
    """``rgb``, which ``view`` shows at any size, with a ring about ``point`` (world), whatever hides the point itself.

    Up close a marker in the scene is often behind the needles and the mist that one has come to look at.
    """
    height, width = rgb.shape[:2]
    uv, z = project(view, point.to(view.c2w)[None])
    if float(z[0]) <= 0:
        return rgb
    rows = torch.arange(height, device=rgb.device) + 0.5 - float(uv[0, 1]) * height / view.height
    columns = torch.arange(width, device=rgb.device) + 0.5 - float(uv[0, 0]) * width / view.width
    off = (torch.hypot(columns[None], rows[:, None]) - max(_RING * height, 4.0)).abs()[..., None]
    line = max(_RING_LINE * height, 1.0)
    drawn = torch.where(off < 2 * line, torch.ones_like(rgb), rgb)
    return torch.where(off < line, rgb.new_tensor(TARGET_TINT).expand_as(rgb), drawn)


def _tinted(rgb: Tensor, tint: tuple[float, float, float]) -> Tensor:
    return (1 - _STRENGTH) * rgb + _STRENGTH * rgb.new_tensor(tint)


def _enlarged(mask: Bool[Tensor, "h w"], like: Float[Tensor, "H W 3"]) -> Bool[Tensor, "H W 1"]:
    large = F.interpolate(mask.to(like)[None, None], like.shape[:2], mode="nearest")
    return large[0, 0, :, :, None] > 0.5
