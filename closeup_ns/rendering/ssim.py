"""Structural similarity as a training loss (Wang et al. 2004), fused with its gradient on the CPU."""

from __future__ import annotations

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.kernels import load_kernels

TAPS, SIGMA = 11, 1.5
"""The Gaussian window, as in the paper and in pytorch_msssim."""


@functools.lru_cache(maxsize=1)
def _window() -> Tensor:
    offsets = torch.arange(TAPS, dtype=torch.float32) - TAPS // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    return weights / weights.sum()


class _FusedSsim(Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, reference: Tensor, wants_gradient: bool) -> Tensor:
        image, reference = image.contiguous(), reference.contiguous()
        gradient = torch.empty_like(image) if wants_gradient else None
        value = torch.empty((), dtype=torch.float64)
        load_kernels().call("ssim", *image.shape, image, reference, _window(), gradient, value)
        ctx.gradient = gradient
        return value.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_value: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.gradient * d_value, None, None


def _suits_kernel(image: Tensor, reference: Tensor) -> bool:
    on_cpu = not (image.is_cuda or reference.is_cuda) and image.device.type == "cpu"
    is_float = image.dtype == reference.dtype == torch.float32
    return (
        on_cpu and is_float and not reference.requires_grad and min(image.shape[:2]) >= TAPS and kernels_available()[0]
    )


def ssim(image: Float[Tensor, "H W 3"], reference: Float[Tensor, "H W 3"]) -> Float[Tensor, ""]:
    """Mean structural similarity of two images in [0, 1], differentiable with respect to ``image``.

    The value is that of ``pytorch_msssim.ssim(data_range=1, size_average=True)``: an 11-tap Gaussian window with sigma
    1.5 and no padding. The kernel serves float32 on the CPU; everything else (CUDA, other dtypes, a reference with a
    gradient, a side under 11 pixels) goes through pytorch_msssim. ValueError where the shapes differ.
    """
    if image.shape != reference.shape or image.dim() != 3:
        raise ValueError(
            f"ssim: images [H,W,channels] of one shape expected, got {tuple(image.shape)} and {tuple(reference.shape)}"
        )
    if _suits_kernel(image, reference):
        return _FusedSsim.apply(image, reference, torch.is_grad_enabled() and image.requires_grad)  # pyright: ignore
    from pytorch_msssim import ssim as unfused_ssim

    planes = [tensor.permute(2, 0, 1)[None] for tensor in (image, reference)]
    return unfused_ssim(planes[0], planes[1], data_range=1.0, size_average=True)
