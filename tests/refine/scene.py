"""A scene in closed form: a textured wall with a box before it, photographed from afar and seen from close by.

Photographs average over their pixels, as a camera does, so a close-up holds frequencies that no photograph has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from closeup_ns.refine.protocol import RefineRequest
from closeup_ns.views.reliability import Observation, ReliablePixels, reliable_pixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from tests.scenes import analytic_renderer

WALL, BOX = 4.0, 3.6
FOCAL = 1.25
SAMPLES = 6


def camera(x: float, y: float, z: float, width: int = 96, height: int = 72) -> View:
    focal = FOCAL * width
    K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, y, z])
    return View(K, c2w, width, height)


def paint(points: Tensor) -> Tensor:
    """Colours [..., 3] of points on the wall and on the box before it."""
    x, y, z = points.unbind(-1)
    wall = torch.stack(
        [
            0.5 + 0.25 * torch.sin(9 * x + 2 * y) + 0.15 * torch.sin(70 * x) * torch.cos(55 * y),
            0.45 + 0.3 * torch.cos(8 * y) + 0.1 * torch.sin(60 * (x + y)),
            0.5 + 0.25 * torch.sin(5 * x - 7 * y),
        ],
        dim=-1,
    )
    box = torch.stack([0.85 + 0.1 * torch.sin(40 * y), 0.2 + 0.1 * torch.sin(30 * x), 0.2 + 0 * x], dim=-1)
    return torch.where((z < (WALL + BOX) / 2)[..., None], box, wall)


RENDER = analytic_renderer(WALL, [((0.23, -0.15, BOX), (0.47, 0.15, BOX + 1e-4))], paint=paint)


def seen(view: View, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Box-averaged colour [3, H, W] and z-depth [H, W] of the scene from a camera before the box."""
    fine = RENDER(view.scaled_to(view.width * samples, view.height * samples))
    return F.avg_pool2d(fine.color.permute(2, 0, 1)[None], samples)[0], RENDER(view).depth


def photographs() -> list[Observation]:
    views = [camera(x, y, 0.0) for x in (-0.5, -0.1, 0.4) for y in (-0.35, 0.05, 0.3)]
    return [Observation(view, *seen(view)) for view in views]


def close_up(zoom: float) -> tuple[View, Rendered]:
    """A view ``zoom`` times closer, and the truth from there."""
    view = camera(0.1, 0.02, WALL - WALL / zoom)
    color, depth = seen(view)
    return view, Rendered(color.permute(1, 2, 0), depth, torch.ones_like(depth))


def faulty(truth: Rendered, generator: torch.Generator) -> Rendered:
    """A render with what plain splats suffer from up close: a colour cast in places, and thin streaks."""
    height, width = truth.alpha.shape
    coarse = torch.randn(1, 3, 3, 4, generator=generator) * 0.08
    cast = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    streaks = (torch.rand(1, width, 1, generator=generator) < 0.04) * 0.15
    return Rendered((truth.color + cast + streaks).clamp(0, 1), truth.depth, truth.alpha)


def known(view: View, render: Rendered, references: list[Observation]) -> ReliablePixels:
    return reliable_pixels(view, render.depth, render.alpha, references)


def solid(color: Tensor, depth: float = 1.0) -> Rendered:
    """An opaque render of the colours [H, W, 3]."""
    return Rendered(color, torch.full(color.shape[:2], depth), torch.ones(color.shape[:2]))


def backed(dense: Tensor, **changes: Tensor) -> ReliablePixels:
    """Photographs agree with the geometry of the pixels ``dense`` [H, W] and, but for ``changes``, say nothing else."""
    nothing = torch.zeros(3, *dense.shape)
    fields = {
        "dense": dense, "sparse": torch.zeros_like(dense), "color": nothing, "blended": nothing,
        "support": dense.long(), "footprint": torch.ones(dense.shape), **changes,
    }  # fmt: skip
    return ReliablePixels(**fields)


def request_of(renders: Sequence[Rendered], dense: Tensor | None = None, **changes: Any) -> RefineRequest:
    """A request for ``renders``, seen by cameras side by side, all of whose pixels are known unless ``dense``."""
    sizes = [render.alpha.shape for render in renders]
    fields = {
        "views": [camera(0.1 * index, 0.3, 3.0, width, height) for index, (height, width) in enumerate(sizes)],
        "renders": list(renders),
        "masks": [backed(torch.ones(size, dtype=torch.bool) if dense is None else dense.clone()) for size in sizes],
        "references": [], "seed": 7, "names": [f"t0_update_{index:02d}" for index in range(len(renders))], **changes,
    }  # fmt: skip
    return RefineRequest(**fields)
