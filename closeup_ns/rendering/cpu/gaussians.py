"""3D Gaussian splatting on the CPU: the compiled kernels as differentiable functions.

Three functions mirror the stages of csrc/tiles/workspace.h: project, shade, blend. Each handles all cameras, one by one. The
second derivative does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from closeup_ns.rendering.kernels import Kernels, Workspace, load_kernels
from closeup_ns.rendering.request import RasterRequest, RenderRequest, append_depth


def camera_floats(request: RenderRequest, eps2d: float = 0.0, antialiased: bool = False) -> Tensor:
    """The cameras [C,23] as projection.h's struct Camera wants them; surfels use neither eps2d nor antialiasing."""
    viewmats, Ks = request.viewmats.detach().float(), request.Ks.detach().float()
    count = len(viewmats)
    lens = torch.stack([Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, 0, 2], Ks[:, 1, 2]], dim=-1)
    shared = [request.width, request.height, eps2d, request.near_plane, request.far_plane, request.radius_clip]
    shared.append(float(antialiased))
    settings = torch.tensor(shared, dtype=torch.float32).expand(count, -1)
    return torch.cat([viewmats[:, :3, :3].reshape(count, 9), viewmats[:, :3, 3], lens, settings], dim=-1).contiguous()


class _Project(Function):
    """Gaussians to 2D means [C,N,2], covariances (xx, xy, yy) [C,N,3], opacities [C,N] and depths [C,N]."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor,
                cameras: Tensor, kernels: Kernels) -> tuple[Tensor, ...]:  # fmt: skip
        count, shape = len(means), (len(cameras), len(means))
        inputs = [tensor.contiguous() for tensor in (means, quats, scales, opacities)]
        means2d = means.new_empty(*shape, 2)
        covariances, whitening, conics = (means.new_empty(*shape, 3) for _ in range(3))
        depths, seen_opacities = means.new_empty(shape), means.new_empty(shape)
        radii = torch.empty(shape, dtype=torch.int32)
        outputs = (means2d, covariances, whitening, conics, depths, seen_opacities, radii)
        for c in range(len(cameras)):
            kernels.call("project_forward", count, cameras[c], *inputs, *(tensor[c] for tensor in outputs))
        ctx.save_for_backward(*inputs, radii, cameras)
        ctx.kernels = kernels
        ctx.mark_non_differentiable(whitening, conics, radii)
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_means2d: Tensor | None, d_covariances: Tensor | None, _whitening: Any, _conics: Any,
                 d_depths: Tensor | None, d_seen_opacities: Tensor | None, _radii: Any) -> tuple[Any, ...]:  # fmt: skip
        *inputs, radii, cameras = ctx.saved_tensors
        shape = tuple(radii.shape)
        incoming = [
            inputs[0].new_zeros(*shape, *tail) if gradient is None else gradient.contiguous()
            for gradient, tail in ((d_means2d, (2,)), (d_covariances, (3,)), (d_depths, ()), (d_seen_opacities, ()))
        ]
        d_viewmats = torch.zeros(len(cameras), 4, 4) if ctx.needs_input_grad[4] else None
        total: list[Tensor] | None = None
        for c in range(len(cameras)):
            outgoing = [torch.empty_like(tensor) for tensor in inputs]
            d_viewmat = None if d_viewmats is None else d_viewmats[c]
            gradients = [gradient[c] for gradient in incoming]
            ctx.kernels.call(
                "project_backward", shape[1], cameras[c], *inputs, radii[c], *gradients, *outgoing, d_viewmat
            )
            total = outgoing if total is None else [a.add_(b) for a, b in zip(total, outgoing)]
        return (*(total or [None] * 4), d_viewmats, None, None)


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
                backgrounds: Tensor | None, given: _BlendInput) -> tuple[Tensor, Tensor]:  # fmt: skip
        cameras, count, channels = features.shape
        image = features.new_empty(cameras, given.height, given.width, channels)
        alphas = features.new_empty(cameras, given.height, given.width, 1)
        workspaces = []
        for c in range(cameras):
            workspace = Workspace(given.kernels)
            background = None if backgrounds is None else backgrounds[c].contiguous()
            given.kernels.call(
                "raster_forward", workspace.handle, count, channels, given.width, given.height, int(given.keep_lists),
                int(given.expected_depth), means2d[c], given.whitening[c], opacities[c], given.depths[c],
                features[c].contiguous(), given.radii[c], background, image[c], alphas[c],
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
        d_backgrounds = (d_image * (1 - alphas)).sum(dim=(1, 2)) if ctx.needs_input_grad[4] else None
        return d_means2d, d_covariances, d_opacities, d_features, d_backgrounds, None


def blended_features(request: RenderRequest, depths: Tensor, radii: Tensor, kernels: Kernels) -> Tensor:
    """The channels [C,N,D] that the render mode blends."""
    cameras, count = radii.shape
    if request.render_mode in ("D", "ED"):
        return depths[..., None]
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
    geometry = [t.float() for t in (request.means, request.quats, request.scales, request.opacities, request.viewmats)]
    cameras = camera_floats(request, request.eps2d, request.rasterize_mode == "antialiased")
    means2d, covariances, whitening, conics, depths, opacities, radii = _Project.apply(*geometry, cameras, kernels)  # pyright: ignore[reportGeneralTypeIssues]
    features = blended_features(request, depths, radii, kernels)
    backgrounds = None if request.backgrounds is None else request.backgrounds.float()
    differentiable = (means2d, features) if backgrounds is None else (means2d, features, backgrounds)
    keep_lists = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable)
    given = _BlendInput(
        whitening, depths.detach(), radii, request.width, request.height, request.depth_is_expected, request.absgrad,
        keep_lists, kernels,
    )  # fmt: skip
    image, alphas = _Blend.apply(means2d, covariances, opacities, features, backgrounds, given)  # pyright: ignore
    info = {"means2d": means2d, "radii": radii, "depths": depths, "conics": conics, "opacities": opacities}
    dtype = request.means.dtype
    return image.to(dtype), alphas.to(dtype), info
