"""PSNR and SSIM against other implementations, colour correction against a known change of colour."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from closeup_ns.metrics.full_reference import color_corrected_psnr, psnr, ssim
from closeup_ns.metrics.metric import MetricOptions
from closeup_ns.metrics.suite import build_metrics


def photo(seed: int = 0, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """Smooth blobs in colour: something with structure."""
    noise = torch.rand(1, 3, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
    return smooth[0].permute(1, 2, 0)


def test_psnr_is_skimages_on_what_counts_and_capped_for_identical_images():
    image, truth = photo(0), photo(1)
    counted = torch.zeros(48, 64, dtype=torch.bool)
    assert math.isnan(psnr(image, truth, counted))
    counted[:, :20] = True
    one, other = truth.numpy().astype(np.float64), image.numpy().astype(np.float64)
    expected = [peak_signal_noise_ratio(one[:, :end], other[:, :end], data_range=1) for end in (64, 20)]
    assert [psnr(image, truth), psnr(image, truth, counted)] == pytest.approx(expected, abs=1e-9)
    assert psnr(truth, truth) == 100.0


def test_ssim_is_on_rgb_not_on_luma():
    from pytorch_msssim import ssim as reference

    image, truth = photo(0), photo(1)
    planes = [tensor.permute(2, 0, 1)[None] for tensor in (image, truth)]
    assert ssim(image, truth) == pytest.approx(float(reference(*planes, data_range=1.0)), abs=1e-5)
    # Two images of one luma and other colours: a metric on luma sees no difference.
    luma = torch.tensor([0.299, 0.587, 0.114])
    tinted = truth * 0.5 + 0.25
    shift = (photo(3) - 0.5) * 0.2
    recolored = tinted + shift - (shift @ luma)[..., None]
    assert torch.allclose(recolored @ luma, tinted @ luma, atol=1e-6)
    assert ssim(recolored, tinted) < 0.95


def test_colour_correction_undoes_a_gain_per_channel_and_no_blur():
    truth = 0.1 + 0.7 * photo(0)
    exposed = truth * torch.tensor([0.8, 1.1, 0.9]) + torch.tensor([0.05, 0.0, -0.02])
    assert psnr(exposed, truth) < 30 < 60 < color_corrected_psnr(exposed, truth)
    other = photo(7)
    assert color_corrected_psnr(other, truth) < 25


def test_an_image_without_contrast_becomes_the_mean():
    truth = photo(0)
    expected = float(-10 * torch.log10((truth - truth.mean(dim=(0, 1))).square().mean()))
    assert color_corrected_psnr(torch.full_like(truth, 0.4), truth) == pytest.approx(expected, abs=0.3)
    for clipped in (0.0, 1.0):  # has no colour that could be mapped
        assert 0 < color_corrected_psnr(torch.full_like(truth, clipped), truth) <= expected + 0.3


def test_the_suite_has_all_that_need_no_weights():
    metrics, missing = build_metrics(["psnr", "ssim", "cc_psnr", "sharpness"], MetricOptions())
    scores = {metric.name: metric(photo(), photo()) for metric in metrics}
    assert scores["psnr"] == 100.0 and scores["ssim"] == scores["sharpness"] == pytest.approx(1.0) and not missing
    assert scores["cc_psnr"] > 60 and "cycles per pixel" in metrics[3].provenance.notes
