"""The PSNR that each training step reports, against torchmetrics'."""

from __future__ import annotations

import torch
from torchmetrics.image import PeakSignalNoiseRatio

from closeup_ns.model.losses import PlainPsnr


def test_is_torchmetrics_psnr(generator: torch.Generator) -> None:
    oracle = PeakSignalNoiseRatio(data_range=1.0)
    for shape in ((20, 30, 3), (1, 3, 12, 17)):
        image, reference = (torch.rand(shape, generator=generator) for _ in range(2))
        torch.testing.assert_close(PlainPsnr()(image, reference), oracle(image, reference))
