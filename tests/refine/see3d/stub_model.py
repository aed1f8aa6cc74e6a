"""A stand-in for See3D's network, and requests of a scene in closed form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.protocol import GuideImage, RefineRequest
from closeup_ns.refine.see3d.refiner import See3DRefiner
from closeup_ns.refine.see3d.stage import BASE, Stage
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from tests.refine.scene import WALL, camera, request_of, seen, solid

CPU = torch.device("cpu")


@dataclass
class Call:
    """One joint pass as the model got it."""

    references: Tensor
    renders: Tensor
    masks: Tensor
    latents: Tensor
    noise: Tensor
    """The first number of each picture's generator."""
    steps: int


@dataclass
class Stub:
    """A model that gives back what ``paint`` makes of the renders."""

    paint: Callable[[Call], Tensor] = lambda call: call.renders
    most: int = 1000
    """Frames that fit into its memory."""
    error: Callable[[], Exception] = lambda: torch.cuda.OutOfMemoryError("CUDA out of memory")
    calls: list[Call] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __call__(
        self,
        references: Tensor,
        renders: Tensor,
        masks: Tensor,
        *,
        latents: Tensor,
        generators: Sequence[torch.Generator],
        steps: int,
        progress: Callable[[int, int], None],
    ) -> Tensor:
        assert len(generators) == len(references) + len(renders)
        noise = torch.stack([torch.randn((), generator=one) for one in generators])
        call = Call(references, renders, masks, latents, noise, steps)
        self.calls.append(call)
        if len(generators) > self.most:
            raise self.error()
        for done in range(steps):
            progress(done + 1, steps)
        return self.paint(call)

    def load(self, config: See3DRefinerConfig, network: str, device: torch.device) -> Stub:
        self.loaded.append(network)
        return self


SMALL = dataclasses.replace(BASE, side=64, overlap=16)
"""See3D's first stage, as if its network knew squares of 64 pixels."""


def refiner(stub: Stub, stage: Stage = SMALL, **options: Any) -> See3DRefiner:
    config = dataclasses.replace(See3DRefinerConfig(steps=4, unknown="render"), **options)
    return See3DRefiner(config, CPU, stage, stub.load)


@functools.cache
def close(index: int, width: int = 96, height: int = 72) -> tuple[View, Rendered]:
    view = camera(0.1 * index - 0.3, 0.3, WALL - 1.0, width, height)
    color, depth = seen(view, 1)
    return view, Rendered(color.permute(1, 2, 0).contiguous(), depth, torch.ones_like(depth))


@functools.cache
def photograph(index: int) -> GuideImage:
    view = camera(0.15 * index - 0.3, 0.2, 0.0, 160, 120)
    return GuideImage(f"train/{index}", view, seen(view, 1)[0].permute(1, 2, 0), True)


def guides(count: int) -> list[GuideImage]:
    return [photograph(index) for index in range(count)]


def make_request(
    count: int = 3, references: int = 2, size: tuple[int, int] = (96, 72), dense: Tensor | None = None, **changes: Any
) -> RefineRequest:
    """``size``: width and height of the views. One of 64 x 64 is one tile of ``SMALL``, one of 96 x 72 four."""
    views, renders = zip(*[close(index, *size) for index in range(count)], strict=True)
    return request_of(renders, dense, **{"views": list(views), "anchors": guides(references), **changes})


def one_view(color: Tensor, dense: Tensor | None = None, references: int = 1) -> RefineRequest:
    """A view of the colours [H, W, 3]."""
    return request_of([solid(color)], dense, anchors=guides(references))
