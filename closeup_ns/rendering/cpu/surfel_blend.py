"""2D Gaussian splatting on the CPU: the compiled blend of surfels as a differentiable function.

csrc/surfels/records.h explains the parametrisation. The second derivative does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.kernels import Kernels, Workspace


@dataclass(frozen=True, eq=False)
class SurfelBlendInput:
    """What the blend of surfels needs and gives no gradient to."""

    whitening: Tensor
    """[C,N,3] (l11, l21, l22) of the covariances; 0 where a surfel is seen edge-on."""
    ray_transforms: Tensor
    """[C,N,3,3]; of which the last row, the depth along the surfel, is used."""
    depths: Tensor
    """[C,N] sort keys, positive."""
    radii: Tensor
    """[C,N] int32; what has 0 is left out."""
    width: int
    height: int
    expected_depth: bool
    """Whether the last channel is divided by alpha."""
    distortion: bool
    """Whether the last channel's distortion is wanted."""
    keep_lists: bool
    """Whether backward will follow."""
    kernels: Kernels


class BlendSurfels(Function):
    """Projected surfels with features [C,N,D], D <= 4, and normals to images.

    Inputs: centers, perspective, means2d and densify [C,N,2], covariances (xx, xy, yy) and normals [C,N,3], opacities
    [C,N]. ``densify`` is all zeros and draws nothing; its gradient is gsplat's ``gradient_2dgs``. Outputs: image
    [C,H,W,D], alphas [C,H,W,1], normals [C,H,W,3], distort [C,H,W,1] or None.
    """

    @staticmethod
    def forward(ctx: Any, centers: Tensor, covariances: Tensor, perspective: Tensor, means2d: Tensor, densify: Tensor,
                opacities: Tensor, features: Tensor, normals: Tensor,
                given: SurfelBlendInput) -> tuple[Tensor | None, ...]:  # fmt: skip
        cameras, count, channels = features.shape
        sizes = (channels, 1, 3, 1 if given.distortion else 0)
        shape = (cameras, given.height, given.width)
        images = [features.new_empty(*shape, size) if size else None for size in sizes]
        opacities = opacities.contiguous()
        surfels = [centers, covariances, given.whitening, perspective, means2d, given.ray_transforms, opacities]
        surfels = [tensor.contiguous() for tensor in (*surfels, given.depths, features, normals, given.radii)]
        workspaces = []
        for c in range(cameras):
            workspace = Workspace(given.kernels)
            given.kernels.call(
                "surfel_forward", workspace.handle, count, channels, given.width, given.height, int(given.keep_lists),
                int(given.expected_depth), *(tensor[c] for tensor in surfels), *(_camera(image, c) for image in images),
            )  # fmt: skip
            workspaces.append(workspace if given.keep_lists else None)
        ctx.save_for_backward(opacities, *images)
        ctx.workspaces, ctx.given = workspaces, given
        ctx.set_materialize_grads(False)
        return tuple(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_images: Tensor | None) -> tuple[Any, ...]:
        opacities, *images = ctx.saved_tensors
        given: SurfelBlendInput = ctx.given
        image = images[0]
        d_image = torch.zeros_like(image) if d_images[0] is None else d_images[0].contiguous()
        incoming = [d_image, *(None if d is None else d.contiguous() for d in d_images[1:])]
        sizes = {"centers": 2, "covariances": 3, "perspective": 2, "means2d": 2, "densify": 2}
        outgoing = [opacities.new_empty(*opacities.shape, size) for size in sizes.values()]
        outgoing.append(torch.empty_like(opacities))
        outgoing += [opacities.new_empty(*opacities.shape, size) for size in (image.shape[-1], 3)]
        for c, workspace in enumerate(ctx.workspaces):
            given.kernels.call(
                "surfel_backward", workspace.handle, *(_camera(i, c) for i in images),
                *(_camera(d, c) for d in incoming), opacities[c], *(d[c] for d in outgoing),
            )  # fmt: skip
        return *outgoing, None


def _camera(tensor: Tensor | None, c: int) -> Tensor | None:
    return None if tensor is None else tensor[c]
