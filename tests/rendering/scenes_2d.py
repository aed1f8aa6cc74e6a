"""Small scenes of surfels for the 2DGS tests."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from closeup_ns.rendering.request import SurfelImages, SurfelRequest

from .scenes import make_request

LEAVES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")
OUTPUTS = ("channels", "alphas", "normals", "distort")


def make_surfel_request(count: int, generator: torch.Generator, **changes: Any) -> SurfelRequest:
    """The ball of ``make_request`` as surfels: depth and distortion on."""
    size = {key: changes.pop(key) for key in ("cameras", "width", "height") if key in changes}
    common = vars(make_request(count, generator, **size)).copy()
    for only_3d in ("eps2d", "absgrad", "rasterize_mode"):
        del common[only_3d]
    return SurfelRequest(**{**common, "render_mode": "RGB+ED", "distloss": True, **changes})


def in_dtype(request: SurfelRequest, dtype: torch.dtype, leaves: tuple[str, ...] = ()) -> SurfelRequest:
    """The request in ``dtype``, its tensors detached and those named in ``leaves`` with gradients."""
    given = {field.name: getattr(request, field.name) for field in fields(request)}
    tensors = {
        name: value.detach().to(dtype).clone().requires_grad_(name in leaves)
        for name, value in given.items()
        if isinstance(value, Tensor)
    }
    return replace(request, **tensors)


def random_loss(images: SurfelImages, seed: int = 7) -> Tensor:
    """A fixed random linear loss of every image that there is."""
    weights = torch.Generator().manual_seed(seed)
    loss = images.alphas.new_zeros(())
    for name in OUTPUTS:
        image = getattr(images, name)
        if image is not None:
            loss = loss + (image * torch.randn(image.shape, generator=weights).to(image)).sum()
    return loss


def quaternion(axis: tuple[float, float, float], degrees: float) -> Tensor:
    """The rotation wxyz by ``degrees`` around a unit ``axis``."""
    half = math.radians(degrees) / 2
    return torch.tensor([math.cos(half), *(math.sin(half) * a for a in axis)], dtype=torch.float64)


def one_disc(mean: tuple[float, float, float], quat: Tensor, scales: tuple[float, float], opacity: float,
             **changes: Any) -> SurfelRequest:  # fmt: skip
    """One white float64 disc before a camera at the world's origin: f = (50, 40), centre (20.5, 15.5), 41x31 pixels."""
    K = torch.tensor([[50.0, 0, 20.5], [0, 40.0, 15.5], [0, 0, 1]], dtype=torch.float64)
    given = {
        "means": torch.tensor([mean], dtype=torch.float64), "quats": quat[None],
        "scales": torch.tensor([[*scales, float("nan")]], dtype=torch.float64),  # the third must not matter
        "opacities": torch.tensor([opacity], dtype=torch.float64), "colors": torch.ones(1, 3, dtype=torch.float64),
        "viewmats": torch.eye(4, dtype=torch.float64)[None], "Ks": K[None], "width": 41, "height": 31,
        "near_plane": 0.01, "far_plane": 1e10, "radius_clip": 0.0, "sh_degree": None,
        "render_mode": "RGB+ED", "distloss": True,
    }  # fmt: skip
    return SurfelRequest(**{**given, **changes})


def surface_distances(M: Tensor, pixels: Tensor) -> Tensor:
    """Squared distance u^2 + v^2 on each disc where the rays through ``pixels`` [..., 2] hit its plane; inf behind.

    Args:
        M: ray transforms [..., 3, 3], which broadcast with the pixels.
    """
    M0, M1, M2 = M.unbind(-2)
    hit = torch.linalg.cross(pixels[..., :1] * M2 - M0, pixels[..., 1:] * M2 - M1)
    s = hit[..., :2] / hit[..., 2:]
    in_front = (M2[..., :2] * s).sum(-1) + M2[..., 2] > 0
    return torch.where(in_front, s.square().sum(-1), torch.inf)


def pixel_rays(request: SurfelRequest) -> Tensor:
    """Camera-space directions [H,W,3] with z = 1 through the pixel centres of the first camera."""
    K = request.Ks[0]
    ys, xs = torch.meshgrid(torch.arange(request.height), torch.arange(request.width), indexing="ij")
    x, y = (xs.to(K) + 0.5 - K[0, 2]) / K[0, 0], (ys.to(K) + 0.5 - K[1, 2]) / K[1, 1]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)
