"""The scene that the benchmarks render: flat discs on a sphere, a wall and a floor, like a trained one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from closeup_ns.rendering.request import RasterRequest

LEAVES = ("means", "quats", "scales", "opacities", "colors")
"""What a training step changes."""


@dataclass(frozen=True, order=True)
class RenderSize:
    """How much is rendered."""

    count: int
    """Gaussians."""
    side: int
    """Width and height of the image, in pixels."""

    @classmethod
    def parse(cls, text: str) -> RenderSize:
        """``20000x256``: Gaussians x pixels on a side; k and M stand for thousands and millions. ValueError else."""
        count, separator, side = text.partition("x")
        unit = {"k": 1_000, "M": 1_000_000}.get(count[-1:], 1)
        if not separator or not side.isdigit() or not count.rstrip("kM").isdigit():
            raise ValueError(f"{text!r} is no size: write Gaussians x pixels on a side, as 20000x256 or 1Mx512")
        return cls(int(count.rstrip("kM")) * unit, int(side))

    def __str__(self) -> str:
        return f"{self.count:,} at {self.side}x{self.side}"


def surface_scene(count: int, side: int, seed: int = 0) -> RasterRequest:
    """Half the Gaussians on a sphere of radius 1, the others on a wall and a floor behind it; 58 degrees of view."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    on_sphere = count // 2
    directions = torch.nn.functional.normalize(normal(on_sphere, 3), dim=-1)
    sphere = directions * (1 + 0.02 * normal(on_sphere, 1))
    flat = 4.2 * (torch.rand(count - on_sphere, 3, generator=generator) - 0.5)
    on_floor = len(flat) // 2
    flat[:on_floor, 1] = 1.2 + 0.02 * normal(on_floor)
    flat[on_floor:, 2] = 1.5 + 0.02 * normal(len(flat) - on_floor)
    spacing = math.sqrt(4 * math.pi / on_sphere)
    scales = spacing * torch.exp(0.5 * normal(count, 3)) * torch.tensor([0.8, 0.8, 0.25])
    colors = 0.2 * normal(count, 16, 3)
    colors[:, 0] += 0.5
    viewmat, focal = torch.eye(4)[None].clone(), 0.9 * side
    viewmat[0, 2, 3] = 3.0
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1.0]])[None]
    return RasterRequest(
        means=torch.cat([sphere, flat]), quats=normal(count, 4), scales=scales,
        opacities=torch.sigmoid(2 * normal(count) + 0.5), colors=colors, viewmats=viewmat, Ks=K, width=side,
        height=side, near_plane=0.01, far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=3,
        render_mode="RGB+ED", absgrad=True, rasterize_mode="antialiased",
    )  # fmt: skip


def trainable(request: RasterRequest) -> tuple[RasterRequest, list[Tensor]]:
    """The request with its Gaussians as leaves of a graph, and these leaves."""
    leaves = [getattr(request, name).clone().requires_grad_() for name in LEAVES]
    return replace(request, **dict(zip(LEAVES, leaves))), leaves
