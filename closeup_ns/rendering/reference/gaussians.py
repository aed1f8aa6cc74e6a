"""A slow rasteriser in plain PyTorch: the oracle of the tests and the last fallback.

Everything is written with differentiable tensor operations, in whatever dtype the input has, and shares no code with
the C++ kernels. Semantics are those of gsplat (Kerbl et al. 2023, Eqs. 1-5; gsplat 1.4.0) with exact support: every
pixel where alpha >= 1/255 counts, independent of the tiling, as gsplat >= 1.5 does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.rendering.request import RasterRequest, RenderRequest, append_depth, expected_depth

MIN_ALPHA = 1.0 / 255.0
"""Fainter contributions are skipped."""
MAX_ALPHA = 0.999
"""One Gaussian never blocks all light, which would end the gradient of everything behind it."""
MIN_TRANSMITTANCE = 1e-4
"""A pixel is finished before the Gaussian that would take its transmittance to this or below."""
TILE = 16
"""Side of a square tile in pixels; it changes the speed, never the image."""
MAX_SHARPNESS = 1e18
"""1 / square pixels: Gaussians thinner than 1e-9 pixels are culled, before their conics overflow."""
SHORTEST_QUATERNION = 1e-30
"""The gradient of a shorter one does not fit into float32."""
FRUSTUM_MARGIN = 0.3
"""The projection's slope is clamped this share of the half field of view outside the image (gsplat)."""


def rotation_matrices(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations of wxyz quaternions of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def spherical_harmonics(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    """Colour [N,3] of SH coefficients [N,K,3] up to ``degree`` (0-3) seen along ``directions`` [N,3] (any length)."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    basis = [torch.full_like(x, 0.28209479177387814)]
    if degree >= 1:
        basis += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree >= 2:
        basis += [
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    if degree >= 3:
        basis += [
            -0.5900435899266435 * y * (3 * x * x - y * y),
            2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (5 * z * z - 1),
            0.3731763325901154 * z * (5 * z * z - 3),
            -0.4570457994644658 * x * (5 * z * z - 1),
            1.445305721320277 * z * (x * x - y * y),
            -0.5900435899266435 * x * (x * x - 3 * y * y),
        ]
    weights = torch.stack(basis, dim=-1)
    return (weights[..., None] * coefficients[:, : weights.shape[-1]]).sum(dim=-2)


def _project_camera(request: RasterRequest, camera: int) -> dict[str, Tensor]:
    """EWA projection (Zwicker et al. 2001) of all Gaussians into one camera, culled and clamped as gsplat does."""
    viewmat, K = request.viewmats[camera], request.Ks[camera]
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    factor = rotation @ rotation_matrices(request.quats) * request.scales[:, None, :]
    x, y, z = (request.means @ rotation.T + translation).unbind(-1)
    lengths = request.quats.norm(dim=-1)
    finite = torch.isfinite(factor).all(-1).all(-1) & torch.isfinite(x + y + z) & (lengths > SHORTEST_QUATERNION)
    in_front = finite & (z > request.near_plane) & (z < request.far_plane)
    # Culled Gaussians get harmless numbers, so that no NaN reaches a gradient through a masked branch.
    x, y = torch.where(in_front, x, 0.0), torch.where(in_front, y, 0.0)
    depth = torch.where(in_front, z, 1.0)
    factor = torch.where(in_front[:, None, None], factor, torch.eye(3).to(factor))
    (fx, fy), (cx, cy) = (K[0, 0], K[1, 1]), (K[0, 2], K[1, 2])
    half_x, half_y = 0.5 * request.width / fx, 0.5 * request.height / fy
    slope_x = (x / depth).clamp(
        -(cx / fx + FRUSTUM_MARGIN * half_x), (request.width - cx) / fx + FRUSTUM_MARGIN * half_x
    )
    slope_y = (y / depth).clamp(
        -(cy / fy + FRUSTUM_MARGIN * half_y), (request.height - cy) / fy + FRUSTUM_MARGIN * half_y
    )
    row_u = (fx / depth)[:, None] * (factor[:, 0] - slope_x[:, None] * factor[:, 2])
    row_v = (fy / depth)[:, None] * (factor[:, 1] - slope_y[:, None] * factor[:, 2])
    sharp_xx, sharp_xy, sharp_yy = (row_u * row_u).sum(-1), (row_u * row_v).sum(-1), (row_v * row_v).sum(-1)
    sharp_det = torch.linalg.cross(row_u, row_v).square().sum(-1)
    xx, yy = sharp_xx + request.eps2d, sharp_yy + request.eps2d
    det = sharp_det + request.eps2d * (sharp_xx + sharp_yy) + request.eps2d**2
    in_front = in_front & (det > 0)
    det = torch.where(in_front, det, 1.0)
    opacities = torch.where(in_front, request.opacities, 0.0)
    if request.rasterize_mode == "antialiased":
        positive = sharp_det > 0
        ratio = torch.where(positive, sharp_det / det, 1.0).sqrt()
        opacities = opacities * torch.where(positive, ratio, 0.0)
    means2d = torch.stack([fx * x / depth + cx, fy * y / depth + cy], dim=-1)
    conics = torch.stack([yy / det, -sharp_xy / det, xx / det], dim=-1)
    with torch.no_grad():
        reach = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1.0)))
        extents = torch.stack([reach * xx.sqrt(), reach * yy.sqrt()], dim=-1)
        mean_variance = 0.5 * (xx + yy)
        major = mean_variance + (mean_variance**2 - det).clamp(min=0.01).sqrt()
        radii = torch.ceil(3 * major.sqrt())
        limits = torch.tensor([request.width, request.height]).to(means2d)
        visible = in_front & (opacities >= MIN_ALPHA) & (radii > request.radius_clip)
        visible &= torch.maximum(xx, yy) < MAX_SHARPNESS * det
        visible &= ((means2d + extents > 0) & (means2d - extents < limits)).all(-1)
        radii = torch.where(visible, radii.clamp(max=2**30), 0).int()
    return {
        "means2d": means2d, "conics": conics, "depths": depth, "opacities": opacities, "radii": radii,
        "extents": extents,
    }  # fmt: skip


def blended_features(request: RenderRequest, camera: int, depths: Tensor) -> Tensor:
    """The channels [N,D] that are blended: colour, then depth where the render mode asks for it."""
    colors = request.colors
    if request.sh_degree is not None:
        viewmat = request.viewmats[camera]
        position = -viewmat[:3, :3].T @ viewmat[:3, 3]
        colors = (spherical_harmonics(request.sh_degree, request.means - position, colors) + 0.5).clamp_min(0.0)
    return append_depth(request, colors, depths)


def _accumulate(absgrad: Tensor, ids: Tensor, grad: Tensor) -> None:
    absgrad.index_add_(0, ids, grad.abs().sum(dim=0))


def centers_per_pixel(means2d: Tensor, ids: Tensor, pixels: int, absgrad: Tensor | None) -> Tensor:
    """The 2D means of the Gaussians ``ids``, once for each of ``pixels`` [P,K,2].

    Where ``absgrad`` [N,2] is given, backward adds each pixel's absolute gradient of the 2D means to it.
    """
    centers = means2d[ids][None].expand(pixels, -1, -1)
    if absgrad is not None and centers.requires_grad:
        centers.register_hook(lambda grad: _accumulate(absgrad, ids, grad))
    return centers


def blend_weights(alpha: Tensor) -> Tensor:
    """Weights [P,K] of alphas [P,K] that lie front to back."""
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return torch.where(after.detach() > MIN_TRANSMITTANCE, alpha * before, 0.0)


def _composite(
    splats: dict[str, Tensor], features: Tensor, absgrad: Tensor | None, pixels: Tensor, ids: Tensor
) -> Tensor:
    """Blend the Gaussians ``ids`` (front to back) at ``pixels`` [P,2]: features and then alpha [P,D+1]."""
    dx, dy = (centers_per_pixel(splats["means2d"], ids, len(pixels), absgrad) - pixels[:, None]).unbind(-1)
    a, b, c = splats["conics"][ids].unbind(-1)
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (splats["opacities"][ids] * torch.exp(-power)).clamp(max=MAX_ALPHA)
    alpha = torch.where((power >= 0) & (alpha >= MIN_ALPHA), alpha, 0.0)
    weights = blend_weights(alpha)
    return torch.cat([weights @ features[ids], weights.sum(dim=1, keepdim=True)], dim=-1)


def render_tiles(
    width: int,
    height: int,
    splats: dict[str, Tensor],
    boxes: tuple[Tensor, Tensor],
    composite: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """One camera's image [H,W,K], tile by tile.

    Args:
        splats: ``radii`` [N] (0: not drawn) and ``depths`` [N], which give the order.
        boxes: Lower and upper corners [N,2] of boxes that hold all pixels of a Gaussian.
        composite: Blends at pixel centres [P,2] the Gaussians with the given indices (front to back): [P,K].
    """
    visible = torch.nonzero(splats["radii"] > 0)[:, 0]
    order = visible[torch.argsort(splats["depths"].detach()[visible], stable=True)]
    low, high = boxes[0][order] - 1e-3, boxes[1][order] + 1e-3
    rows = []
    for top in range(0, height, TILE):
        tiles = []
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            inside = (low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top)
            ys, xs = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
            pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(low) + 0.5
            tiles.append(composite(pixels, order[inside]).reshape(bottom - top, right - left, -1))
        rows.append(torch.cat(tiles, dim=1))
    return torch.cat(rows, dim=0)


def _without_broken(request: RasterRequest) -> tuple[RasterRequest, Tensor]:
    """The request with harmless numbers for broken ones, and which Gaussians [C,N] have whole colours.

    A Gaussian with broken geometry gets opacity 0, which culls it. Replacing the numbers before anything is computed
    keeps NaN out of the gradients: behind a masked branch it would still be multiplied by zero.
    """
    geometry = [request.means, request.quats, request.scales, request.opacities[:, None]]
    whole = torch.isfinite(torch.cat(geometry, dim=-1)).all(dim=-1)
    means, quats, scales = (torch.where(whole[:, None], tensor, 1.0) for tensor in geometry[:3])
    colors = request.colors
    if request.sh_degree is not None:
        colors = colors[:, : (request.sh_degree + 1) ** 2].flatten(1)
    drawn = torch.isfinite(colors).all(dim=-1)
    colors = torch.where(drawn[..., None], colors, 0.0)
    if request.sh_degree is not None:
        colors = colors.unflatten(1, (-1, 3))
    request = replace(
        request, means=means, quats=quats, scales=scales, opacities=torch.where(whole, request.opacities, 0.0),
        colors=colors,
    )  # fmt: skip
    return request, drawn.expand(len(request.viewmats), len(whole))


def rasterize_reference(request: RasterRequest) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render a request: (channels [C,H,W,D], alphas [C,H,W,1], info). Differentiable in every floating-point input."""
    request, drawn = _without_broken(request)
    cameras = [_project_camera(request, camera) for camera in range(len(request.viewmats))]
    info: dict[str, Any] = {key: torch.stack([splats[key] for splats in cameras]) for key in cameras[0]}
    absgrad = torch.zeros_like(info["means2d"]) if request.absgrad else None
    if absgrad is not None:
        info["means2d"].absgrad = absgrad
    colors, alphas = [], []
    for camera in range(len(cameras)):
        # Sliced from the stacked tensors, so that info["means2d"] lies on the path of the gradient.
        splats = {key: info[key][camera] for key in cameras[camera]}
        splats["radii"] = torch.where(drawn[camera], splats["radii"], 0)
        features = blended_features(request, camera, splats["depths"])
        center = splats["means2d"].detach()
        boxes = (center - splats["extents"], center + splats["extents"])
        summed = None if absgrad is None else absgrad[camera]
        composite = functools.partial(_composite, splats, features, summed)
        image = render_tiles(request.width, request.height, splats, boxes, composite)
        colors.append(expected_depth(request, image[..., :-1], image[..., -1:]))
        alphas.append(image[..., -1:])
    return torch.stack(colors), torch.stack(alphas), info
