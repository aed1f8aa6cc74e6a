"""3D Gaussian splatting on the CPU: the compiled kernels as differentiable functions.

Three functions mirror the stages of csrc/tiles/workspace.h: project, shade, blend. Each handles all cameras, one by
one. The second derivative does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.cpu.projection import GAUSSIANS, camera_floats, project
from closeup_ns.rendering.kernels import Kernels, Workspace, load_kernels
from closeup_ns.rendering.request import RasterRequest, RenderRequest, append_depth


class _Shade(Function):
    """SH coefficients [N,K,3] to colours [C,N,3] as seen from camera positions [C,3]."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, coefficients: Tensor, positions: Tensor, radii: Tensor, degree: int,
                kernels: Kernels) -> Tensor:  # fmt: skip
        means, coefficients, positions = means.contiguous(), coefficients.contiguous(), positions.contiguous()
        colors = means.new_empty(*radii.shape, 3)
        sizes = (len(means), coefficients.shape[1], degree)
        for c in range(len(positions)):
            kernels.call("shade_forward", *sizes, means, coefficients, radii[c], positions[c], colors[c])
        ctx.save_for_backward(means, coefficients, positions, radii, colors)
        ctx.sizes, ctx.kernels = sizes, kernels
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_colors: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        means, coefficients, positions, radii, colors = ctx.saved_tensors
        d_colors = d_colors.contiguous()
        d_positions = torch.zeros_like(positions) if ctx.needs_input_grad[2] else None
        total: list[Tensor] | None = None
        for c in range(len(positions)):
            outgoing = [torch.empty_like(coefficients), torch.empty_like(means)]
            d_position = None if d_positions is None else d_positions[c]
            ctx.kernels.call(
                "shade_backward", *ctx.sizes, means, coefficients, radii[c], positions[c], colors[c], d_colors[c],
                *outgoing, d_position,
            )  # fmt: skip
            total = outgoing if total is None else [a.add_(b) for a, b in zip(total, outgoing)]
        d_coefficients, d_means = total or (None, None)
        return d_means, d_coefficients, d_positions, None, None, None


@dataclass(frozen=True, eq=False)
class _BlendInput:
    """What the blend needs and gives no gradient to."""

    whitening: Tensor
    depths: Tensor
    radii: Tensor
    width: int
    height: int
    expected_depth: bool
    absgrad: bool
    keep_lists: bool
    kernels: Kernels


class _Blend(Function):
    """Projected Gaussians with features [C,N,D] to images [C,H,W,D] and alphas [C,H,W,1]."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, covariances: Tensor, opacities: Tensor, features: Tensor,
                given: _BlendInput) -> tuple[Tensor, Tensor]:  # fmt: skip
        cameras, count, channels = features.shape
        image = features.new_empty(cameras, given.height, given.width, channels)
        alphas = features.new_empty(cameras, given.height, given.width, 1)
        workspaces = []
        for c in range(cameras):
            workspace = Workspace(given.kernels)
            given.kernels.call(
                "raster_forward", workspace.handle, count, channels, given.width, given.height, int(given.keep_lists),
                int(given.expected_depth), means2d[c], given.whitening[c], opacities[c], given.depths[c],
                features[c].contiguous(), given.radii[c], image[c], alphas[c],
            )  # fmt: skip
            workspaces.append(workspace if given.keep_lists else None)
        ctx.save_for_backward(opacities, image, alphas)
        ctx.means2d, ctx.workspaces, ctx.given, ctx.channels = means2d, workspaces, given, channels
        ctx.set_materialize_grads(False)
        return image, alphas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor | None, d_alphas: Tensor | None) -> tuple[Any, ...]:
        opacities, image, alphas = ctx.saved_tensors
        given: _BlendInput = ctx.given
        d_image = torch.zeros_like(image) if d_image is None else d_image.contiguous()
        d_alphas = None if d_alphas is None else d_alphas.contiguous()
        shape = opacities.shape
        d_means2d, d_covariances = opacities.new_empty(*shape, 2), opacities.new_empty(*shape, 3)
        d_opacities, d_features = torch.empty_like(opacities), opacities.new_empty(*shape, ctx.channels)
        absolute = torch.empty_like(d_means2d) if given.absgrad else None
        for c, workspace in enumerate(ctx.workspaces):
            given.kernels.call(
                "raster_backward", workspace.handle, image[c], alphas[c], d_image[c],
                None if d_alphas is None else d_alphas[c], opacities[c], d_means2d[c], d_covariances[c], d_opacities[c],
                d_features[c], None if absolute is None else absolute[c],
            )  # fmt: skip
        if absolute is not None:
            ctx.means2d.absgrad = absolute
        return d_means2d, d_covariances, d_opacities, d_features, None


def blended_features(request: RenderRequest, depths: Tensor, radii: Tensor, kernels: Kernels) -> Tensor:
    """The channels [C,N,D] that the render mode blends."""
    cameras, count = radii.shape
    if request.sh_degree is None:
        colors = request.colors.float().expand(cameras, count, -1)
    else:
        viewmats = request.viewmats.float()
        positions = -(viewmats[:, :3, :3].transpose(1, 2) @ viewmats[:, :3, 3:])[..., 0]
        colors = _Shade.apply(
            request.means.float(), request.colors.float(), positions, radii, request.sh_degree, kernels
        )
    return append_depth(request, colors, depths)  # pyright: ignore[reportArgumentType]


def rasterize_cpu(request: RasterRequest, kernels: Kernels | None = None) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render a request with the compiled kernels: (channels [C,H,W,D], alphas [C,H,W,1], info).

    Computes in float32; the images come back in the dtype of ``means``. CloseupError where the kernels cannot be had.
    """
    kernels = kernels or load_kernels()
    cameras = camera_floats(request, request.eps2d, request.rasterize_mode == "antialiased")
    projected = project(GAUSSIANS, request, cameras, kernels)
    means2d, covariances, depths, opacities, radii, whitening, conics = projected
    features = blended_features(request, depths, radii, kernels)
    keep_lists = torch.is_grad_enabled() and (means2d.requires_grad or features.requires_grad)
    given = _BlendInput(
        whitening, depths.detach(), radii, request.width, request.height, request.has_depth, request.absgrad,
        keep_lists, kernels,
    )  # fmt: skip
    image, alphas = _Blend.apply(means2d, covariances, opacities, features, given)  # pyright: ignore
    info = {"means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities}
    dtype = request.means.dtype
    return image.to(dtype), alphas.to(dtype), info
