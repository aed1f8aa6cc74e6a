"""What keeps Gaussians from degenerating: needles are the main fault of a plain splat seen up close (quality.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.views.view import View
from closeup_ns.views.warp import project


@torch.no_grad()
def finest_footprint(means: Float[Tensor, "N 3"], views: Sequence[View], margin: float = 0.15) -> Float[Tensor, "N"]:
    """Width in world units of the smallest pixel that looks at each Gaussian, over ``views``.

    A Gaussian counts as seen within ``margin`` of the image's size beyond its border. One that no view sees gets
    the largest footprint of all that are seen (Mip-Splatting does the same).
    """
    finest = torch.full_like(means[:, 0], torch.inf)
    for view in views:
        uv, z = project(view, means)
        border = uv.new_tensor([view.width * margin, view.height * margin])
        size = uv.new_tensor([view.width, view.height])
        seen = (z > 1e-2) & ((uv > -border) & (uv < size + border)).all(-1)
        footprint = z / torch.maximum(view.K[0, 0], view.K[1, 1])
        finest = torch.where(seen, torch.minimum(finest, footprint), finest)
    measured = torch.isfinite(finest)
    fallback = finest[measured].max() if measured.any() else finest.new_tensor(0.0)
    return torch.where(measured, finest, fallback)


def smooth_3d(
    log_scales: Float[Tensor, "N 3"],
    logit_opacities: Float[Tensor, "N 1"],
    footprint: Float[Tensor, "N"],
    variance: float,
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N"]]:
    """Mip-Splatting's 3D filter: convolve each Gaussian with a ball of the finest pixel that saw it.

    Returns linear scales and opacities in (0, 1); the opacity falls so that the total stays what it was.
    """
    filter_variance = variance * footprint[:, None] ** 2
    squared = torch.exp(2 * log_scales)
    smoothed = squared + filter_variance
    shrink = torch.exp(0.5 * (torch.log(squared) - torch.log(smoothed)).sum(-1))
    return torch.sqrt(smoothed), torch.sigmoid(logit_opacities[:, 0]) * shrink
