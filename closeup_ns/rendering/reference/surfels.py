"""A slow rasteriser of surfels (2D Gaussians) in plain PyTorch: the oracle of the tests and the last fallback.

Written with differentiable tensor operations by the formulas of gsplat 1.4.0 (Huang et al. 2024, Sec. 4: the ray is
the intersection of two planes, which M carries into the disc's own frame), in whatever dtype the input has. It shares
no code and no parametrisation with the C++ kernels.

Three things are ours, and the same in the kernels: the support is exact (every pixel where alpha >= 1/255); a hit
behind the camera does not count (gsplat draws its mirror image); and a disc whose one-sigma ellipse reaches the
camera's plane is culled (its box, centre and radius mean nothing there).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from closeup_ns.rendering.reference.gaussians import (
    MAX_ALPHA,
    MIN_ALPHA,
    blend_weights,
    blended_features,
    render_tiles,
    rotation_matrices,
)
from closeup_ns.rendering.request import SurfelImages, SurfelRequest, expected_depth

FILTER_INVERSE_VARIANCE = 2.0
"""The screen-space filter (Huang et al. 2024, Eq. 11): a disc of this inverse variance in 1/pixel^2 around means2d."""
MIN_SEMI_AXIS = 1e-4
"""A disc whose projected ellipse is thinner than this in pixels is edge-on: only its filter is drawn."""
BOUNDED = 0.99
"""A support that reaches this share of the way to the camera's plane, squared, is as good as endless."""


def _harmless_where_broken(request: SurfelRequest) -> tuple[Tensor, SurfelRequest]:
    """Discs [N] whose numbers are finite and whose quaternion is one, and the request with harmless others.

    Replaced before anything is computed: what a masked branch sends back is 0, and 0 times infinity is NaN.
    """
    length = request.quats.norm(dim=-1)
    finite = torch.isfinite(request.means.sum(-1) + request.scales[:, :2].sum(-1) + request.opacities + length)
    whole = finite & (length > 0)
    identity = torch.tensor([1.0, 0, 0, 0]).to(request.quats)
    return whole, replace(
        request,
        means=torch.where(whole[:, None], request.means, 0.0),
        quats=torch.where(whole[:, None], request.quats, identity),
        scales=torch.where(whole[:, None], request.scales, 1.0),
        opacities=torch.where(whole, request.opacities, 0.0),
    )


def _in_front(request: SurfelRequest, tangents: Tensor, centers: Tensor) -> Tensor:
    """Discs [N] that can be projected: between the planes, and one sigma of them before the camera's plane."""
    depth = centers[:, 2]
    within = (depth > 0) & (depth >= request.near_plane) & (depth <= request.far_plane)
    return within & (tangents[:, 2].square().sum(-1) < depth.square())


def _disc_box(M: Tensor, level: Tensor | float) -> tuple[Tensor, Tensor]:
    """Centre and squared half extent [N,2] of the box around the projected disc of ``level`` [N,1] standard deviations.

    The image of the circle u^2 + v^2 = level^2 is the dual conic M diag(level^2, level^2, -1) M^T (gsplat's AABB).
    """
    level = torch.as_tensor(level, dtype=M.dtype, device=M.device).expand(len(M), 1)
    conic = torch.cat([level.square(), level.square(), -torch.ones_like(level)], dim=-1)
    weights = (conic / (conic * M[:, 2].square()).sum(-1, keepdim=True))[:, None]
    center = (weights * M[:, :2] * M[:, 2:]).sum(-1)
    return center, center.square() - (weights * M[:, :2].square()).sum(-1)


def _screen_geometry(request: SurfelRequest, M: Tensor, opacities: Tensor) -> dict[str, Tensor]:
    """What decides where a disc is drawn: 3-sigma radius, box of the exact support, whether it is edge-on."""
    origin = M[:, :2, 2:] / M[:, 2:, 2:]
    # With the pixels' origin in the projected mean, whose choice moves no ellipse, float32 has nothing to cancel.
    near = torch.cat([M[:, :2] - origin * M[:, 2:], M[:, 2:]], dim=1)
    center, squared = _disc_box(near, 1.0)
    radii = torch.ceil(3 * squared.amax(-1).clamp(min=1e-4).sqrt())
    reach = 2 * torch.log((opacities / MIN_ALPHA).clamp(min=1.0))[:, None]
    to_plane = near[:, 2, :2].square().sum(-1, keepdim=True) / near[:, 2, 2:].square()
    bounded = reach * to_plane < BOUNDED
    middle, half = _disc_box(near, torch.where(bounded, reach, 0.0).sqrt())
    half = torch.where(bounded, half.clamp(min=0.0).sqrt(), torch.inf)
    jacobian = near[:, :2, :2] / near[:, 2, 2, None, None]
    major = jacobian.square().sum((-1, -2)).sqrt()  # at least the longer semi-axis, at most sqrt(2) times it
    surface = torch.linalg.det(jacobian).abs() > MIN_SEMI_AXIS * major
    spread = (reach / FILTER_INVERSE_VARIANCE).sqrt()
    half, middle = torch.where(surface[:, None], half, spread), torch.where(surface[:, None], middle, center)
    low = torch.stack([middle - half, center - spread]) + origin[..., 0]
    high = torch.stack([middle + half, center + spread]) + origin[..., 0]
    limits = torch.tensor([request.width, request.height]).to(low)
    touches = ((high > 0) & (low < limits)).all(-1).any(0)  # the disc's box, or the filter's
    visible = (opacities >= MIN_ALPHA) & (radii > request.radius_clip) & touches
    radii = torch.where(visible, radii.clamp(max=2**30), 0).int()
    return {"radii": radii, "support": torch.stack([low.amin(0), high.amax(0)], dim=1), "surface": surface}


def _project_camera(request: SurfelRequest, camera: int) -> dict[str, Tensor]:
    """Ray transforms, centres and normals of all discs in one camera, culled as the module says."""
    viewmat, K = request.viewmats[camera], request.Ks[camera]
    whole, request = _harmless_where_broken(request)
    axes = viewmat[:3, :3] @ rotation_matrices(request.quats)
    tangents, normals = axes[..., :2] * request.scales[:, None, :2], axes[..., 2]
    centers = request.means @ viewmat[:3, :3].T + viewmat[:3, 3]
    usable = whole & _in_front(request, tangents, centers)
    frame = torch.cat([tangents, centers[..., None]], dim=-1)
    frame = torch.where(usable[:, None, None], frame, torch.eye(3).to(frame))
    normals = torch.where(usable[:, None], normals, 0.0)
    opacities = torch.where(usable, request.opacities, 0.0)
    (fx, fy), (cx, cy) = (K[0, 0], K[1, 1]), (K[0, 2], K[1, 2])
    rows = [fx * frame[:, 0] + cx * frame[:, 2], fy * frame[:, 1] + cy * frame[:, 2], frame[:, 2]]
    M = torch.stack(rows, dim=1)
    with torch.no_grad():
        geometry = _screen_geometry(request, M, opacities)
        towards = torch.where((normals * frame[..., 2]).sum(-1, keepdim=True) < 0, 1.0, -1.0).to(normals)
    return {
        "means2d": _disc_box(M, 1.0)[0], "depths": frame[:, 2, 2], "ray_transforms": M,
        "normals": normals * towards, "opacities": opacities, **geometry,
    }  # fmt: skip


def _surface_distance(M: Tensor, drawn: Tensor, pixels: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """|s|^2 of the hit s of each pixel's ray with each disc [P,K], and where it wins over the filter's ``limit``.

    The ray is the intersection of the planes px M2 - M0 and py M2 - M1 in the disc's frame. Where the disc is missed,
    hit behind the camera, or hit farther out than ``limit``, the first result is 0 and gets no gradient.
    """
    px, py = pixels[:, None, :1], pixels[:, None, 1:]
    cross = torch.linalg.cross(px * M[:, 2] - M[:, 0], py * M[:, 2] - M[:, 1])
    with torch.no_grad():
        hit = cross[..., :2] / cross[..., 2:]
        depth = (M[:, 2, :2] * hit).sum(-1) + M[:, 2, 2]
        wins = drawn & (depth > 0) & (hit.square().sum(-1) <= limit)
    hit = torch.where(wins[..., None], cross[..., :2], 0.0) / torch.where(wins, cross[..., 2], 1.0)[..., None]
    return hit.square().sum(-1), wins


def _distortion(weights: Tensor, depths: Tensor) -> Tensor:
    """sum_ij w_i w_j |z_i - z_j| [P,1] of weights [P,K] and depths [K] that grow (Huang et al. 2024, Eq. 13)."""
    weighted = weights * depths
    opaque, depth = weights.cumsum(1) - weights, weighted.cumsum(1) - weighted  # of everything before
    return 2 * (weighted * opaque - weights * depth).sum(dim=1, keepdim=True)


def _composite(
    request: SurfelRequest, splats: dict[str, Tensor], features: Tensor, pixels: Tensor, ids: Tensor
) -> Tensor:
    """Blend the discs ``ids`` (front to back) at ``pixels`` [P,2]: features, normal, distortion, alpha."""
    offset = splats["means2d"][ids] - pixels[:, None]
    filtered = FILTER_INVERSE_VARIANCE * offset.square().sum(-1)
    M = splats["ray_transforms"][ids]
    distance, wins = _surface_distance(M, splats["surface"][ids], pixels, filtered.detach())
    sigma = 0.5 * torch.where(wins, distance, filtered)
    alpha = (splats["opacities"][ids] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    weights = blend_weights(torch.where(alpha >= MIN_ALPHA, alpha, 0.0))
    distortion = _distortion(weights, features[ids, -1]) if request.distloss else weights.new_zeros(len(weights), 1)
    parts = [weights @ features[ids], weights @ splats["normals"][ids], distortion, weights.sum(dim=1, keepdim=True)]
    return torch.cat(parts, dim=-1)


def rasterize_reference_2d(request: SurfelRequest) -> SurfelImages:
    """Render a request. Differentiable in every floating-point input.

    ``info["gradient_2dgs"]`` is a leaf of zeros whose ``.grad`` becomes what gsplat's strategies densify by: the
    gradient of M[0,2] and M[1,2] (the projected centre, through the discs' surfaces alone) times the depth.
    ``info["support"]`` [C,N,2,2] holds the corners of the boxes around each disc's pixels.
    """
    cameras = [_project_camera(request, camera) for camera in range(len(request.viewmats))]
    info: dict[str, Any] = {key: torch.stack([splats[key] for splats in cameras]) for key in cameras[0]}
    info["gradient_2dgs"] = torch.zeros_like(info["means2d"], requires_grad=True)
    moved = info["gradient_2dgs"] * info["depths"].detach()[..., None]
    blended_transforms = info["ray_transforms"] + torch.nn.functional.pad(moved[..., None], (2, 0, 0, 1))
    images = []
    for camera in range(len(cameras)):
        # Sliced from the stacked tensors, so that info["means2d"] lies on the path of the gradient.
        splats = {key: info[key][camera] for key in cameras[camera]}
        splats["ray_transforms"] = blended_transforms[camera]
        features = blended_features(request, camera, splats["depths"])
        composite = functools.partial(_composite, request, splats, features)
        low, high = splats["support"].unbind(1)
        images.append(render_tiles(request.width, request.height, splats, (low, high), composite))
    del info["surface"]
    return _split(request, torch.stack(images), info)


def _split(request: SurfelRequest, images: Tensor, info: dict[str, Any]) -> SurfelImages:
    """The blended images [C,H,W,D+5] by name."""
    blended, normals, distort, alphas = images.split([request.channels, 3, 1, 1], dim=-1)
    info["render_distort"] = distort if request.distloss else None
    return SurfelImages(expected_depth(request, blended, alphas), alphas, normals, info["render_distort"], info)
