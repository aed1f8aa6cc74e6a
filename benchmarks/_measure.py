"""Rasterisers by their names, and what one takes at a size: CPU milliseconds of a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks._scene import RenderSize, surface_scene, trainable
from closeup_ns.rendering.cpu.gaussians import rasterize_cpu
from closeup_ns.rendering.gsplat_backend import gsplat_arguments
from closeup_ns.rendering.kernels import CHOICE_VARIABLE, load_kernels
from closeup_ns.rendering.rasterize_2d import rasterization_2dgs
from closeup_ns.rendering.reference.gaussians import rasterize_reference
from closeup_ns.rendering.request import RasterRequest
from closeup_ns.rendering.ssim import ssim

LOOP = "PyTorch loop"
"""The tiled loop in plain PyTorch: what one writes without kernels, and the tests' oracle. It is timed once."""
SURFELS = "ours, 2DGS"
"""The same Gaussians as discs, which cost more arithmetic. Blends colour, depth and normals."""
REPEATS, LEAST_REPEATS = 15, 3
SECONDS_PER_FIGURE = 1.5
"""A figure whose runs would take longer is the median of fewer runs."""


def renderer(name: str) -> Callable[[RasterRequest], Tensor]:
    """The rasteriser `LOOP`, `SURFELS`, "ours, VARIANT" or ``module:function``.

    It gives channels [C,H,W,D] in the graph of the request's Gaussians; colour comes first.
    """
    if name == LOOP:
        return lambda request: rasterize_reference(request)[0]
    if name == SURFELS:
        return _surfels
    if name.startswith("ours, "):
        kernels = load_kernels(name.removeprefix("ours, "))
        return lambda request: rasterize_cpu(request, kernels)[0]
    module, _, function = name.partition(":")
    other = getattr(importlib.import_module(module), function)
    return lambda request: other(**gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False))[0]


def _surfels(request: RasterRequest) -> Tensor:
    arguments = gsplat_arguments(request, packed=False, tile_size=16, sparse_grad=False)
    del arguments["rasterize_mode"], arguments["eps2d"]  # 2DGS has a filter of its own
    channels, _, normals, *_ = rasterization_2dgs(**arguments, backend="cpu")
    return torch.cat([channels, normals], dim=-1)


@dataclass(frozen=True)
class Timing:
    """What one rasteriser takes at one size."""

    forward: float
    """CPU milliseconds of the image alone: median, as the others."""
    forward_backward: float
    """The image and the gradients of all Gaussians."""
    step: float
    """A training step: these, L1 and SSIM, fused Adam."""
    memory_mb: float
    """Largest resident memory beyond the interpreter's with its libraries, scene and optimiser included."""


def cpu_milliseconds(call: Callable[[], object], once: bool) -> float:
    """Median CPU milliseconds after a run to warm up: of one run, or of as many as fit into `SECONDS_PER_FIGURE`."""
    call()
    times: list[float] = []
    repeats = 1
    while len(times) < repeats:
        started = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - started))
        if not once:
            repeats = max(LEAST_REPEATS, min(REPEATS, int(1e3 * SECONDS_PER_FIGURE / times[0])))
    return statistics.median(times)


def measure(name: str, size: RenderSize) -> Timing:
    """Time a rasteriser at a size in this process."""
    before = _peak_memory_mb()
    render = renderer(name)
    request, leaves = trainable(surface_scene(size.count, size.side))
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(size.side, size.side, 3, generator=generator)
    optimizer = torch.optim.Adam(leaves, lr=1e-5, fused=True)
    weights: list[Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            image = render(request)
        if not weights:
            weights.append(torch.randn(image.shape, generator=generator))

    def both() -> None:
        optimizer.zero_grad()
        render(request).backward(weights[0])

    def step() -> None:
        optimizer.zero_grad()
        rgb = render(request)[0, ..., :3]
        (0.8 * (rgb - target).abs().mean() + 0.2 * (1 - ssim(rgb, target))).backward()
        optimizer.step()

    image, gradients, whole = (cpu_milliseconds(call, once=name == LOOP) for call in (forward, both, step))
    return Timing(image, gradients, whole, _peak_memory_mb() - before)


def measure_apart(name: str, size: RenderSize, threads: int) -> Timing | str:
    """`measure` in a fresh process, so that memory is this size's own. A line that says why where it fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks._measure"])
    with ProcessPoolExecutor(1, context, _begin, (name, threads)) as pool:
        try:
            return pool.submit(measure, name, size).result()
        except (Exception, SystemExit) as error:  # foreign code may raise anything, and one must not end the others
            return f"{type(error).__name__}: {error}"


def _begin(name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if name.startswith("ours, ") and name != SURFELS:
        os.environ[CHOICE_VARIABLE] = name.removeprefix("ours, ")  # SSIM, too


def _peak_memory_mb() -> float:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
