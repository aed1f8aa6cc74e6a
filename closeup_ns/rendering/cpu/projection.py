"""The first stage on the CPU: Gaussians or surfels as cameras see them, with the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.kernels import Kernels
from closeup_ns.rendering.request import RenderRequest


@dataclass(frozen=True)
class Projection:
    """A projection of the kernels, and the shape of each number that it computes of a Gaussian."""

    kernel: str
    differentiable: tuple[tuple[int, ...], ...]
    fixed: tuple[tuple[int, ...], ...]
    """Of what has no gradient, the radii excepted."""


GAUSSIANS = Projection("project", ((2,), (3,), (), ()), ((3,), (3,)))
"""2D means [C,N,2], covariances (xx, xy, yy) [C,N,3], depths, opacities [C,N]; radii; whitening, conics [C,N,3]."""
SURFELS = Projection("project_surfels", ((2,), (3,), (2,), (2,), (3,), (), ()), ((3, 3), (3,)))
"""In this order (Huang et al. 2024, with gsplat's semantics):

- centers [C,N,2]: the projected means, pixels
- covariances [C,N,3]: (xx, xy, yy) of P P^T, P = d pixel / d s at the centre, s in one-sigma units of the tangents
- perspective [C,N,2]: g, so that 1 + g.(pixel - center) = z_center / z_hit; zero where the surfel is seen edge-on
- means2d [C,N,2]: the middle of the projected one-sigma disc's box, where the low-pass filter sits
- normals [C,N,3]: unit, camera axes, towards the camera
- depths [C,N]: z-depth of the means
- opacities [C,N]
- radii int32 [C,N]: 3 sigma in pixels, rounded up; 0 where the surfel is culled and all else is zero
- ray transforms [C,N,3,3]: gsplat's M
- whitening [C,N,3]: (l11, l21, l22) of the covariance, see csrc/tiles/workspace.h; zeros where it is seen edge-on

Culled is what is not finite, lies outside [near, far], is fainter than 1/255, not above radius_clip, can reach no pixel
with an alpha of 1/255, or whose one-sigma disc reaches the camera plane.
"""


def camera_floats(request: RenderRequest, eps2d: float = 0.0, antialiased: bool = False) -> Tensor:
    """The cameras [C,23] as projection.h's struct Camera wants them; surfels use neither eps2d nor antialiasing."""
    viewmats, Ks = request.viewmats.detach().float(), request.Ks.detach().float()
    count = len(viewmats)
    lens = torch.stack([Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2]], dim=-1)
    shared = [request.width, request.height, eps2d, request.near_plane, request.far_plane, request.radius_clip]
    shared.append(float(antialiased))
    settings = torch.tensor(shared, dtype=torch.float32).expand(count, -1)
    return torch.cat([viewmats[:, :3, :3].reshape(count, 9), viewmats[:, :3, 3], lens, settings], dim=-1).contiguous()


def project(projection: Projection, request: RenderRequest, cameras: Tensor, kernels: Kernels) -> tuple[Tensor, ...]:
    """The outputs of `GAUSSIANS` or `SURFELS` for a request and its ``cameras`` (`camera_floats`), float32."""
    geometry = (request.means, request.quats, request.scales, request.opacities, request.viewmats)
    return Project.apply(*(tensor.float() for tensor in geometry), cameras, projection, kernels)  # pyright: ignore[reportReturnType]


class Project(Function):
    """Means [N,3], quats [N,4] (wxyz, any length), scales [N,3], opacities [N], viewmats [C,4,4], all float32, with
    ``cameras`` of the same view matrices, to a projection's outputs: differentiable ones, radii, fixed ones.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor,
                cameras: Tensor, projection: Projection, kernels: Kernels) -> tuple[Tensor, ...]:  # fmt: skip
        count, shape = len(means), (len(cameras), len(means))
        inputs = [tensor.contiguous() for tensor in (means, quats, scales, opacities)]
        differentiable = [means.new_empty(*shape, *tail) for tail in projection.differentiable]
        radii = torch.empty(shape, dtype=torch.int32)
        fixed = [means.new_empty(*shape, *tail) for tail in projection.fixed]
        outputs = (*differentiable, radii, *fixed)
        for c in range(len(cameras)):
            kernels.call(f"{projection.kernel}_forward", count, cameras[c], *inputs, *(tensor[c] for tensor in outputs))
        ctx.save_for_backward(*inputs, radii, cameras)
        ctx.projection, ctx.kernels = projection, kernels
        ctx.mark_non_differentiable(radii, *fixed)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, radii, cameras = ctx.saved_tensors
        incoming = [
            inputs[0].new_zeros(*radii.shape, *tail) if gradient is None else gradient.contiguous()
            for gradient, tail in zip(d_outputs, ctx.projection.differentiable)
        ]
        d_viewmats = torch.zeros(len(cameras), 4, 4) if ctx.needs_input_grad[4] else None
        total: list[Tensor] | None = None
        for c in range(len(cameras)):
            outgoing = [torch.empty_like(tensor) for tensor in inputs]
            d_viewmat = None if d_viewmats is None else d_viewmats[c]
            ctx.kernels.call(
                f"{ctx.projection.kernel}_backward", radii.shape[1], cameras[c], *inputs, radii[c],
                *(gradient[c] for gradient in incoming), *outgoing, d_viewmat,
            )  # fmt: skip
            total = outgoing if total is None else [a.add_(b) for a, b in zip(total, outgoing)]
        return (*(total or [None] * 4), d_viewmats, None, None, None)
