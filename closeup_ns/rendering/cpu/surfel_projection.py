"""2D Gaussian splatting on the CPU, first stage: surfels to the image, with the compiled kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.kernels import Kernels

_DIFFERENTIABLE_TAILS = ((2,), (3,), (2,), (2,), (3,), (), ())


class ProjectSurfels(Function):
    """Surfels (2D Gaussians; Huang et al. 2024, with gsplat's semantics) as C cameras see them.

    Of means [N,3], quats [N,4] (wxyz, any length), scales [N,3] (the third is ignored), opacities [N], viewmats [C,4,4]
    and ``cameras`` [C,23] (``camera_floats`` of the same view matrices), all float32, makes, in this order:

    - centers [C,N,2]: the projected means, pixels
    - covariances [C,N,3]: (xx, xy, yy) of P P^T, P = d pixel / d s at the centre, s in one-sigma units of the tangents
    - perspective [C,N,2]: g, so that 1 + g.(pixel - center) = z_center / z_hit; zero where the surfel is seen edge-on
    - means2d [C,N,2]: the middle of the projected one-sigma disc's box, where the low-pass filter sits
    - normals [C,N,3]: unit, camera axes, towards the camera
    - depths [C,N]: z-depth of the means
    - opacities [C,N]
    - radii int32 [C,N]: 3 sigma in pixels, rounded up; 0 where the surfel is culled and all else is zero
    - ray transforms [C,N,3,3]: gsplat's M
    - whitening [C,N,3]: (l11, l21, l22) of the covariance, see csrc/tiles/workspace.h; zeros where the surfel is seen edge-on

    The last three have no gradient. Culled is what is not finite, lies outside [near, far], is fainter than 1/255, not
    above radius_clip, can reach no pixel with an alpha of 1/255, or whose one-sigma disc reaches the camera plane.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor,
                cameras: Tensor, kernels: Kernels) -> tuple[Tensor, ...]:  # fmt: skip
        count, shape = len(means), (len(cameras), len(means))
        inputs = [tensor.contiguous() for tensor in (means, quats, scales, opacities)]
        differentiable = [means.new_empty(*shape, *tail) for tail in _DIFFERENTIABLE_TAILS]
        radii = torch.empty(shape, dtype=torch.int32)
        ray_transforms, whitening = means.new_empty(*shape, 3, 3), means.new_empty(*shape, 3)
        outputs = (*differentiable, radii, ray_transforms, whitening)
        for c in range(len(cameras)):
            kernels.call("project_surfels_forward", count, cameras[c], *inputs, *(tensor[c] for tensor in outputs))
        ctx.save_for_backward(*inputs, radii, cameras)
        ctx.kernels = kernels
        ctx.mark_non_differentiable(radii, ray_transforms, whitening)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, radii, cameras = ctx.saved_tensors
        incoming = [
            inputs[0].new_zeros(*radii.shape, *tail) if gradient is None else gradient.contiguous()
            for gradient, tail in zip(d_outputs, _DIFFERENTIABLE_TAILS)
        ]
        d_viewmats = torch.zeros(len(cameras), 4, 4) if ctx.needs_input_grad[4] else None
        total: list[Tensor] | None = None
        for c in range(len(cameras)):
            outgoing = [torch.empty_like(tensor) for tensor in inputs]
            d_viewmat = None if d_viewmats is None else d_viewmats[c]
            ctx.kernels.call(
                "project_surfels_backward", radii.shape[1], cameras[c], *inputs, radii[c],
                *(gradient[c] for gradient in incoming), *outgoing, d_viewmat,
            )  # fmt: skip
            total = outgoing if total is None else [a.add_(b) for a, b in zip(total, outgoing)]
        return (*(total or [None] * 4), d_viewmats, None, None)
