"""What is compared: our kernels, the PyTorch loop, and any rasteriser that takes the same call.

Another rasteriser joins as ``--other module:function``. The function takes the keyword arguments of our
``rasterization`` (which are those of ``gsplat.rasterization``) as CPU tensors and returns channels [C,H,W,D], alphas,
information.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks._scene import surface_scene
from closeup_ns.errors import CloseupError
from closeup_ns.rendering.cpu.gaussians import rasterize_cpu
from closeup_ns.rendering.gsplat_backend import gsplat_arguments
from closeup_ns.rendering.kernels import load_kernels
from closeup_ns.rendering.reference.gaussians import rasterize_reference
from closeup_ns.rendering.request import RasterRequest


class Candidate(Protocol):
    """One rasteriser. Picklable: every size is measured in a process of its own."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def slow(self) -> bool:
        """Whether it is timed once, and only at sizes that are not too large for it."""
        ...

    def available(self) -> tuple[bool, str]:
        """Whether it runs here, and if not, why not."""
        ...

    def render(self, request: RasterRequest) -> Tensor:
        """Channels [C,H,W,D] in the graph of the request's Gaussians; colour comes first."""
        ...


@dataclass(frozen=True)
class OurKernels:
    """The compiled kernels of one instruction set."""

    variant: str
    slow: bool = False

    @property
    def name(self) -> str:
        return f"ours, {self.variant}"

    def available(self) -> tuple[bool, str]:
        return _works(lambda: load_kernels(self.variant))

    def render(self, request: RasterRequest) -> Tensor:
        return rasterize_cpu(request, load_kernels(self.variant))[0]


@dataclass(frozen=True)
class TorchLoop:
    """The tiled loop in plain PyTorch: what one writes without kernels, and the tests' oracle."""

    name: str = "PyTorch loop"
    slow: bool = True

    def available(self) -> tuple[bool, str]:
        return True, ""

    def render(self, request: RasterRequest) -> Tensor:
        return rasterize_reference(request)[0]


@dataclass(frozen=True)
class Other:
    """Anybody's rasteriser behind the same keyword call."""

    target: str
    """``module:function``."""
    slow: bool = False

    @property
    def name(self) -> str:
        return self.target

    def available(self) -> tuple[bool, str]:
        """Whether it can be imported and renders a few Gaussians on the CPU."""
        return _works(lambda: self.render(_few_gaussians()))

    def render(self, request: RasterRequest) -> Tensor:
        arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
        return resolve(self.target)(**arguments)[0]


@dataclass(frozen=True)
class OurSurfels:
    """Our 2DGS: the same Gaussians as discs, which cost more arithmetic. Blends colour, depth and normals."""

    name: str = "ours, 2DGS"
    slow: bool = False

    def available(self) -> tuple[bool, str]:
        return _works(lambda: self.render(_few_gaussians()))

    def render(self, request: RasterRequest) -> Tensor:
        arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
        for of_3dgs in ("rasterize_mode", "absgrad", "eps2d"):  # 2DGS has a filter of its own
            del arguments[of_3dgs]
        seam = resolve("closeup_ns.rendering.rasterize_2d:rasterization_2dgs")
        channels, _, normals, *_ = seam(**arguments, backend="cpu")
        return torch.cat([channels, normals], dim=-1)


def resolve(target: str) -> Callable[..., Any]:
    """The function that ``module:function`` names. ValueError where it is not of that form; ImportError as usual."""
    module, separator, name = target.partition(":")
    if not separator or not name:
        raise ValueError(f"{target!r} names no rasteriser: write module:function")
    return getattr(importlib.import_module(module), name)


def usable(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[str]]:
    """The candidates that run here, and a line for each that does not."""
    kept: list[Candidate] = []
    reasons = []
    for candidate in candidates:
        fine, reason = candidate.available()
        if fine:
            kept.append(candidate)
        else:
            reasons.append(f"{candidate.name}: not measured: {reason}")
    return kept, reasons


def _works(attempt: Callable[[], object]) -> tuple[bool, str]:
    """Whether ``attempt`` succeeds; what a foreign rasteriser raises can be anything."""
    try:
        attempt()
    except CloseupError as error:
        return False, str(error)
    except Exception as error:  # foreign code
        return False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return True, ""


def _few_gaussians() -> RasterRequest:
    return surface_scene(4, 16)
