"""Do the photographs of a capture differ in exposure? From their colours at its sparse points, before any training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.model.exposure import BASE
from closeup_ns.views.view import View
from closeup_ns.views.warp import inside, project, sample

MOST_POINTS = 4000
LONG_SIDE = 160
"""Pixels of the photographs as they are compared: points and poses are a little off."""
USABLE = (0.04, 0.96)
"""Values between which a colour tells of exposure; beyond them sensors clip and noise decides."""
ITERATIONS = 20
FEWEST = 20
"""Points that a photograph must share with others."""


@dataclass(frozen=True, eq=False)
class Drift:
    """What the sparse points say of exposure."""

    log_gain: Float[Tensor, "N 3"]
    """Of each photograph, mean 0."""
    spread: float
    """Standard deviation over the photographs, without what is noise: two halves of the points must agree on it."""
    compared: int
    """Photographs of which the points tell; the others have their start."""


def measure_drift(
    views: Sequence[View],
    photographs: Iterable[Float[Tensor, "H W 3"]],
    shown: Iterable[Bool[Tensor, "H W"] | None],
    points: Float[Tensor, "P 3"],
    start: Float[Tensor, "N 3"],
    generator: torch.Generator,
) -> Drift:
    """Fit a log gain per photograph and a colour per point to the photographs' colours where the points project.

    Points that something hides in a photograph are outliers, which a robust fit leaves out.

    Args:
        photographs: of the views, taken one after the other.
        shown: pixels of each photograph that show the scene (None: all).
        points: sparse points in the views' world.
        start: log gains of photographs that no point tells of.
    """
    chosen = torch.randperm(len(points), generator=generator)[:MOST_POINTS]
    points = points[chosen.to(points.device)]
    columns = [_colours(view, image, mask, points) for view, image, mask in zip(views, photographs, shown)]
    values, valid = torch.stack([value for value, _ in columns], 1), torch.stack([good for _, good in columns], 1)
    told = (valid & (valid.sum(1, keepdim=True) > 1)).sum(0) >= FEWEST
    valid = valid & told
    half = len(points) // 2
    first, second = (_fit(values[part], valid[part], start) for part in (slice(half), slice(half, None)))
    common = (first * second)[told].mean() if bool(told.any()) else start.var(0, correction=0).mean()
    return Drift(_fit(values, valid, start), float(common.clamp_min(0).sqrt()), int(told.sum()))


def _colours(
    view: View, photograph: Float[Tensor, "H W 3"], shown: Bool[Tensor, "H W"] | None, points: Float[Tensor, "P 3"]
) -> tuple[Float[Tensor, "P 3"], Bool[Tensor, "P"]]:
    """Log colours of a photograph at ``points``, and which of them tell something."""
    small = view.resized(min(LONG_SIDE, max(view.width, view.height)))
    size = (small.height, small.width)
    uv, z = project(small, points.to(small.K))
    image = F.interpolate(photograph.permute(2, 0, 1)[None], size, mode="area")[0]
    colour = sample(image, uv).T
    valid = inside(small, uv, z) & (colour > USABLE[0]).all(-1) & (colour < USABLE[1]).all(-1)
    if shown is not None:
        counts = F.interpolate(shown.float()[None, None], size, mode="area")[0]
        valid &= sample(counts, uv)[0] > 0.999
    return torch.log(colour.clamp_min(0) + BASE).double(), valid


def _fit(
    values: Float[Tensor, "P N 3"], valid: Bool[Tensor, "P N"], start: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 3"]:
    """Log gains g, of mean 0, of values = g + colour of the point; by least squares with Cauchy weights."""
    weight = valid.double()
    prior = torch.eye(valid.shape[1], dtype=weight.dtype, device=weight.device)
    gain = start.to(values)
    for _ in range(ITERATIONS):
        total = weight.sum(1, keepdim=True).clamp_min(1e-9)
        share = weight / total
        mean = torch.einsum("pn,pnc->pc", share, values)
        normal = torch.diag(weight.sum(0)) - weight.T @ share + prior
        right = torch.einsum("pn,pnc->nc", weight, values - mean[:, None]) + start.to(values)
        gain = torch.linalg.solve(normal, right)
        colour = torch.einsum("pn,pnc->pc", share, values - gain)
        residual = (values - gain - colour[:, None]).square().mean(-1).sqrt()
        scale = residual[valid].median().clamp_min(0.01) if bool(valid.any()) else residual.new_tensor(1.0)
        weight = valid / (1 + (residual / (1.5 * scale)) ** 2)
    return (gain - gain.mean(0)).to(start)
