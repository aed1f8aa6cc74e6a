"""SSIM against pytorch_msssim and float64 autograd."""

from __future__ import annotations

import pytest
import torch
from pytorch_msssim import ssim as oracle
from torch import Tensor

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.ssim import ssim

from .scenes import of_thread_counts

pytestmark = pytest.mark.skipif(not kernels_available()[0], reason=kernels_available()[1])


def pair(height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    reference = torch.rand(height, width, 3, generator=generator)
    noisy = reference + 0.2 * torch.randn(height, width, 3, generator=generator)
    return noisy.clamp(0, 1), reference


def oracle_value(image: Tensor, reference: Tensor) -> Tensor:
    planes = [tensor.double().permute(2, 0, 1)[None] for tensor in (image, reference)]
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    return oracle(planes[0], planes[1], data_range=1.0, win=(window / window.sum()).expand(3, 1, 1, 11))


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (12, 27), (75, 11), (80, 33), (140, 64)])
def test_value_and_gradient(size: tuple[int, int], generator: torch.Generator) -> None:
    image, reference = pair(*size, generator)
    ours, double = image.clone().requires_grad_(), image.double().requires_grad_()
    value, expected = ssim(ours, reference), oracle_value(double, reference)
    (3.0 * value).backward()
    (3.0 * expected).backward()
    assert ours.grad is not None and double.grad is not None
    torch.testing.assert_close(value.double(), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(ours.grad.double(), double.grad, atol=1e-5 * double.grad.abs().max().item(), rtol=1e-4)


def test_equal_images_have_one_and_no_gradient(generator: torch.Generator) -> None:
    image = torch.rand(32, 48, 3, generator=generator)
    ours = image.clone().requires_grad_()
    value = ssim(ours, image)
    value.backward()
    assert ours.grad is not None
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    assert ours.grad.abs().max() < 1e-6


def test_constant_images_stay_finite() -> None:
    black = torch.zeros(20, 20, 3, requires_grad=True)
    value = ssim(black, torch.ones(20, 20, 3))
    value.backward()
    assert black.grad is not None and torch.isfinite(black.grad).all() and 0 <= value < 1e-3


def test_small_images_and_other_dtypes_use_the_fallback(generator: torch.Generator) -> None:
    small = torch.rand(8, 30, 3, generator=generator, requires_grad=True)
    ssim(small, torch.rand(8, 30, 3, generator=generator)).backward()
    assert small.grad is not None
    image, reference = pair(30, 30, generator)
    double = ssim(image.double(), reference.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), ssim(image, reference), atol=1e-6, rtol=0)


def test_thread_count_changes_no_bit(generator: torch.Generator) -> None:
    image, reference = pair(200, 90, generator)
    image.requires_grad_()

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        value = ssim(image, reference)
        return value.detach(), torch.autograd.grad(value, image)[0]

    first, *others = of_thread_counts(value_and_gradient)
    assert all(torch.equal(*pair) for other in others for pair in zip(first, other))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.rand(20, 20, 3), torch.rand(20, 21, 3))
