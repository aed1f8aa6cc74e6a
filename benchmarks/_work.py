"""What the arithmetic allows: the operations that an image needs, and how many a core can do in a second.

Useful work is counted in (Gaussian, pixel) pairs whose weight enters the image: alpha >= 1/255, and a transmittance
above 1e-4 behind it. Each pair costs a fixed number of floating-point operations, read off the kernels' source
(additions and multiplications count one, a fused multiply-add two, a reciprocal one; comparisons, selections and
integer operations nothing). With D blended channels:

    forward.cpp, blend_block               26 + 2 D   whitened offset 6, power 4, 2^x 13, weight 3, channels 2 D
    backward.cpp, contribute, add_to_rows  38 + 4 D   the same alpha 26, light from behind 2 D + 7, reductions 2 D + 5;
                                                      8 more for the absolute gradients

Projection, spherical harmonics, sorting, lists and lanes that do nothing are no useful work: they lower the share.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks._native import compile_and_load
from closeup_ns.rendering.cpu.gaussians import rasterize_cpu
from closeup_ns.rendering.request import RasterRequest

LANES = 16
"""Pixels of a block, which the kernels treat as one vector."""
_CHAINS = (2, 3, 5, 8, 12, 16)
_PEAK_SECONDS = 0.05


def forward_flops(channels: int) -> int:
    """Operations per useful pair of a forward pass that blends ``channels`` channels."""
    return 26 + 2 * channels


def backward_flops(channels: int, absgrad: bool) -> int:
    """Operations per useful pair of a backward pass, forward's not included."""
    return 38 + 4 * channels + (8 if absgrad else 0)


@dataclass(frozen=True)
class Work:
    """What one image needs."""

    pairs: int
    """(Gaussian, pixel) pairs whose weight enters the image."""
    entries: int
    """(Gaussian, block of 4x4 pixels) entries that must be looked at for them."""

    @property
    def occupancy(self) -> float:
        """Share of the 16 lanes of an entry that do useful work."""
        return self.pairs / max(LANES * self.entries, 1)


def count_work(request: RasterRequest) -> Work:
    """Count the pairs and block entries of a request's first camera by brute force over every Gaussian's box."""
    with torch.no_grad():
        info = rasterize_cpu(request)[2]
    visible = torch.nonzero(info["radii"][0] > 0)[:, 0]
    order = visible[torch.argsort(info["depths"][0][visible], stable=True)].contiguous()
    arrays = [info[name][0].float().contiguous() for name in ("means2d", "conics", "opacities")]
    count = compile_and_load("_count.cpp", "generic").closeup_count_work
    out = (ctypes.c_int64 * 2)()
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (order, *arrays)]
    count(ctypes.c_int64(len(order)), *pointers, request.width, request.height, out)
    return Work(out[0], out[1])


def measured_peak(variant: str) -> float:
    """Floating-point operations per second of one core with an instruction set, measured in CPU time."""
    loop = compile_and_load("_peak.cpp", variant).closeup_fma_loop
    loop.argtypes, loop.restype = [ctypes.c_int, ctypes.c_int64], ctypes.c_float
    best = 0.0
    for chains in _CHAINS:
        rounds = 100_000
        while (seconds := _cpu_seconds(loop, chains, rounds)) < _PEAK_SECONDS:
            rounds *= 2
        for _ in range(3):
            seconds = min(seconds, _cpu_seconds(loop, chains, rounds))
        best = max(best, 2.0 * LANES * chains * rounds / seconds)
    return best


def _cpu_seconds(loop: Callable[[int, int], float], chains: int, rounds: int) -> float:
    started = time.process_time()
    loop(chains, rounds)
    return time.process_time() - started
