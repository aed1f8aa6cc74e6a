"""Pixels from a supersampled render in one pass: sums under a separable window, fused with their adjoint."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.backend import kernels_available
from closeup_ns.rendering.kernels import load_kernels


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, render: Tensor, alpha: Tensor, factor: int, window: Tensor) -> tuple[Tensor, Tensor]:
        render, alpha = render.contiguous(), alpha.contiguous()
        rows, source_width, channels = render.shape
        height, width = rows // factor, source_width // factor
        sizes = (height, width, channels, factor, source_width, (len(window) - factor) // 2)
        out, out_alpha = render.new_empty(height, width, channels), render.new_empty(height, width, 1)
        load_kernels().call("gather_forward", *sizes, window, render, alpha, out, out_alpha)
        ctx.save_for_backward(*((render, alpha, window) if channels == 4 else (window,)))
        ctx.sizes, ctx.rows = sizes, rows
        ctx.set_materialize_grads(False)
        return out, out_alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_out_alpha: Tensor | None) -> tuple[Any, ...]:
        *depth_inputs, window = ctx.saved_tensors
        height, width, channels, factor, source_width, _ = ctx.sizes
        render, alpha = depth_inputs or (None, None)
        d_out = window.new_zeros(height, width, channels) if d_out is None else d_out.contiguous()
        d_out_alpha = None if d_out_alpha is None else d_out_alpha.contiguous()
        all_used = ctx.rows == height * factor and source_width == width * factor
        make = window.new_empty if all_used else window.new_zeros  # what is cut off at the far edges gets no gradient
        d_render, d_alpha = make(ctx.rows, source_width, channels), make(ctx.rows, source_width, 1)
        load_kernels().call("gather_backward", *ctx.sizes, window, render, alpha, d_out, d_out_alpha, d_render, d_alpha)
        return d_render, d_alpha, None, None


def can_gather(render: Tensor, alpha: Tensor) -> bool:
    """Whether `gather_pixels` serves these: float32 on the CPU, 3 channels or 4, and kernels that compile here."""
    on_cpu = render.device.type == alpha.device.type == "cpu"
    is_float = render.dtype == alpha.dtype == torch.float32
    return on_cpu and is_float and render.shape[-1] in (3, 4) and kernels_available()[0]


def gather_pixels(
    render: Float[Tensor, "sH sW C"], alpha: Float[Tensor, "sH sW 1"], factor: int, window: Float[Tensor, "T"]
) -> tuple[Float[Tensor, "H W C"], Float[Tensor, "H W 1"]]:
    """Pixels of ``factor`` x ``factor`` samples: sums of colour and alpha under a separable symmetric ``window``.

    The window has a weight for each of a pixel's own samples and for as many more on either side. A fourth channel is
    expected depth: it is averaged over a pixel's own samples, as far as they are opaque. The border is mirrored without
    repeating the outermost sample; rows and columns beyond the last whole pixel are cut off. Differentiable once,
    bitwise the same for any number of threads.

    Raises:
        ValueError: The shapes do not fit, the window is not of ``factor`` weights and an even number more, it reaches
            across the whole image, or a tensor is not float32 on the CPU (see `can_gather`).
    """
    if render.dim() != 3 or alpha.shape != (*render.shape[:2], 1):
        raise ValueError(
            f"gather: render [sH,sW,C] and alpha [sH,sW,1], got {tuple(render.shape)}, {tuple(alpha.shape)}"
        )
    if factor < 1:
        raise ValueError(f"gather: factor is {factor}, expected 1 or more")
    if render.shape[-1] not in (3, 4):
        raise ValueError(f"gather: {render.shape[-1]} channels, expected 3, or 4 with depth")
    for name, tensor in (("render", render), ("alpha", alpha), ("window", window)):
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(f"gather: {name} is {tensor.dtype} on {tensor.device}, expected float32 on the CPU")
    smaller = min(render.shape[:2]) // factor * factor
    further = len(window) - factor if window.dim() == 1 else -1
    if further < 0 or further % 2 or further // 2 >= smaller:
        raise ValueError(f"gather: a window of {tuple(window.shape)} for {smaller} samples along the shorter side")
    return _Gather.apply(render, alpha, factor, window.contiguous())  # pyright: ignore[reportReturnType]
