"""SSIM and PSNR as splatfacto calls them, and the loss of an injected view (4.3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from closeup_ns.rendering.ssim import ssim


class FusedSsim(nn.Module):
    """Drop-in for ``pytorch_msssim.SSIM`` on one image, by our fused kernel. Gradient for the second image only."""

    def forward(self, reference: Float[Tensor, "1 3 H W"], image: Float[Tensor, "1 3 H W"]) -> Tensor:
        return ssim(image[0].permute(1, 2, 0), reference[0].permute(1, 2, 0))


class PlainPsnr(nn.Module):
    """PSNR in dB of images in [0, 1]. torchmetrics' keeps a running state and a graph, at every training step."""

    @torch.no_grad()
    def forward(self, image: Tensor, reference: Tensor) -> Float[Tensor, ""]:
        return -10 * torch.log10(nn.functional.mse_loss(image, reference))


@dataclass(frozen=True, eq=False)
class InjectedTarget:
    """What an injected view is compared with."""

    image: Float[Tensor, "H W 3"]
    """The refined image: real colour where it is known, refined elsewhere."""
    weight: Float[Tensor, "H W"]
    """Trust per pixel in [0, 1], already multiplied by what its provenance and its round are worth."""
    sparse: Bool[Tensor, "H W"]
    """Reliable pixels: real colour on which real views agree."""
    sparse_color: Float[Tensor, "H W 3"]
    """Their colour: an average over ``footprint`` pixels, so for judging only; ``image`` agrees with it there."""
    footprint: Float[Tensor, "H W"]
    """How many pixels of the view a photograph's pixel covers there, in each direction."""
    sparse_weight: float
    """Weight of the reliable pixels' own L1 term."""
    ssim_weight: float
    """Weight of the structural term; above 0 only where a generator added detail to fit."""


def real_share(footprint: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """How much of a reliable pixel is real: a photograph's one sample is shared by the pixels of its footprint."""
    return footprint.clamp_min(1) ** -2


def injected_view_loss(rgb: Float[Tensor, "H W 3"], target: InjectedTarget) -> dict[str, Tensor]:
    """L1 by trust plus L1 on reliable pixels, both averaged over ALL pixels, plus D-SSIM where there is detail.

    Averaging over all pixels makes a view that knows little weigh little: normalising by the number of reliable
    pixels over-weights the few that are left at 9x and 27x and made them worse (quality.md, point 3).
    """
    error = (rgb - target.image).abs().mean(-1)
    losses = {"injected": (error * target.weight).mean()}
    if target.sparse_weight > 0:
        share = torch.where(target.sparse, real_share(target.footprint), 0.0)
        losses["reliable"] = target.sparse_weight * (error * share).mean()
    if target.ssim_weight > 0:
        trust = target.weight.mean()
        # Where nothing is trusted the structure is the render's own: a window knows no weights.
        shown = torch.where(target.weight[..., None] > 0, target.image, rgb.detach())
        losses["injected_ssim"] = target.ssim_weight * trust * (1 - ssim(rgb, shown))
    return losses
