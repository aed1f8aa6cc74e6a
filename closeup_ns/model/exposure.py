"""Exposure and white balance of each photograph, so that drift is not learnt as detail."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

BASE = 0.055
"""sRGB: an encoded value plus this is a power of linear light, so exposure multiplies it (below 0.04 nearly)."""
STOP = math.log(2) / 2.4
"""Of exposure, in the log gain of encoded values."""
PRIOR = 0.01
"""Weight of a photograph's squared log gain in the loss: what tells nothing (black, masked) stays at the identity."""


class PhotographExposure(nn.Module):
    """A gain per channel for each training photograph: its exposure and its white balance.

    Only differences between photographs can be seen. The mean log gain of all of them is taken out wherever a gain is
    used, so what the model itself shows is the photographs' mean exposure. Off, every gain is 1.
    """

    on: Tensor

    def __init__(self, photographs: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(photographs, 3))
        self.register_buffer("on", torch.tensor(False))

    @torch.no_grad()
    def start(self, log_gain: Float[Tensor, "N 3"]) -> None:
        """Switch it on, from ``log_gain``."""
        self.log_gain.copy_(log_gain)
        self.on.fill_(True)

    def of(self, index: int) -> Float[Tensor, "3"]:
        """Log gain of photograph ``index`` over the mean of all.

        The mean has no gradient: Adam would make whole steps of its tiny share for photographs that are not looked at.
        """
        return self.log_gain[index] - self.log_gain.detach().mean(0)

    def forward(self, rgb: Float[Tensor, "H W 3"], index: int) -> Float[Tensor, "H W 3"]:
        """``rgb``, at the model's own exposure, as photograph ``index`` would have recorded it."""
        return exposed(rgb, self.of(index)) if self.on else rgb

    def undo(self, photograph: Float[Tensor, "H W 3"], index: int) -> Float[Tensor, "H W 3"]:
        """Photograph ``index`` (or a crop of it) brought to the model's own exposure."""
        return exposed(photograph, -self.of(index)) if self.on else photograph

    def prior(self, index: int) -> Tensor:
        """Loss that holds photograph ``index`` near the identity. Of it alone, as in `of`."""
        return PRIOR * self.of(index).square().mean()


def exposed(rgb: Float[Tensor, "H W 3"], log_gain: Float[Tensor, "3"]) -> Float[Tensor, "H W 3"]:
    """Encoded ``rgb`` with its light multiplied, channel by channel; clipped as a sensor clips."""
    return ((rgb + BASE) * torch.exp(log_gain) - BASE).clamp(0, 1)
