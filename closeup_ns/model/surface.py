"""What 2DGS knows of the surface beside its colour, and the losses that make discs lie on one (2DGS, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup_ns.model.kernel import box_average


@dataclass(frozen=True, eq=False)
class Surface:
    """The geometry of one 2DGS render, at the render's resolution. Normals are in world space, towards the camera."""

    normals: Float[Tensor, "sH sW 3"]
    """The discs' normals, blended as colours are: their length is at most the opacity."""
    from_depth: Float[Tensor, "sH sW 3"] | None
    """Unit normals of the surface that the expected depth describes; zero at the border. None without depth."""
    alpha: Float[Tensor, "sH sW 1"]
    """Accumulated opacity."""
    distortion: Float[Tensor, "sH sW 1"] | None
    """How far the blended discs lie apart along the ray, in world units (2DGS, Eq. 13, L1 form). None unless asked."""


def normal_consistency(surface: Surface) -> Float[Tensor, ""]:
    """Mean over the pixels of ``w (sum_i w_i - n . N)``: 0 where every disc lies in the surface that depth describes.

    ``n = sum_i w_i n_i`` are the blended normals and ``N`` the normal from depth, so that the bracket is 2DGS's
    ``sum_i w_i (1 - n_i . N)`` (Eq. 14). As in its code the weight ``w`` is the opacity, without a gradient: here the
    least of the five pixels that the normal from depth was taken from. Next to a pixel that nothing covers there is no
    such normal, and the gradient of what stands in for it is without bound.
    """
    assert surface.from_depth is not None, "the normals from depth need a render with depth"
    height, width = surface.alpha.shape[:2]
    if min(height, width) < 3:
        return surface.normals.sum() * 0  # too small a picture for a normal from depth
    alpha = surface.alpha.detach()[..., 0]
    inner = alpha[1:-1, 1:-1]
    weight = torch.zeros_like(alpha)  # the border, which has no normal from depth, weighs nothing
    weight[1:-1, 1:-1] = inner
    for neighbour in (alpha[:-2, 1:-1], alpha[2:, 1:-1], alpha[1:-1, :-2], alpha[1:-1, 2:]):
        torch.minimum(weight[1:-1, 1:-1], neighbour, out=weight[1:-1, 1:-1])
    # One dot product: a render has millions of numbers, and each further operation on them takes as long as all of it.
    agreement = torch.dot((weight[..., None] * surface.normals).flatten(), surface.from_depth.flatten())
    return (torch.dot(weight.flatten(), alpha.flatten()) - agreement) / inner.numel()


def normals_image(normals: Float[Tensor, "sH sW 3"], factor: int) -> Float[Tensor, "H W 3"]:
    """Normals as nerfstudio shows them, ``(n + 1) / 2``, averaged over ``factor`` x ``factor``; black: no normal."""
    mean = box_average(normals, factor)
    unit = nn.functional.normalize(mean, dim=-1)
    return torch.where(unit.any(-1, keepdim=True), (unit + 1) / 2, 0.0)
