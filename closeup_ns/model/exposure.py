"""Per-image exposure: a colour gain and offset for each photograph, so that drift is not learnt as detail."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ExposureCompensation(nn.Module):
    """A gain (in log) and an offset per channel and training image; the identity at the start.

    What is rendered for evaluation carries no compensation, so the photographs' mean exposure must stay the
    model's own: `drift` keeps the mean over the images at the identity.
    """

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(num_images, 3))
        self.offset = nn.Parameter(torch.zeros(num_images, 3))

    def forward(self, rgb: Float[Tensor, "H W 3"], image_index: int) -> Float[Tensor, "H W 3"]:
        """``rgb`` as photograph ``image_index`` would have recorded it."""
        return rgb * torch.exp(self.log_gain[image_index]) + self.offset[image_index]

    def undo(self, photograph: Float[Tensor, "H W 3"], image_index: int) -> Float[Tensor, "H W 3"]:
        """A photograph brought to the model's own exposure, in [0, 1]."""
        return ((photograph - self.offset[image_index]) * torch.exp(-self.log_gain[image_index])).clamp(0, 1)

    def drift(self) -> Tensor:
        """Squared distance of the mean compensation from the identity, plus a little of each image's own."""
        mean = self.log_gain.mean(0).square().sum() + self.offset.mean(0).square().sum()
        each = self.log_gain.square().mean() + self.offset.square().mean()
        return mean + 0.01 * each
