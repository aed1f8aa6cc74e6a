"""Times of a candidate at a size, in CPU milliseconds of a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from benchmarks._candidates import Candidate, OurKernels
from benchmarks._scene import RenderSize, surface_scene, trainable
from closeup_ns.rendering.kernels import CHOICE_VARIABLE
from closeup_ns.rendering.ssim import ssim

REPEATS, LEAST_REPEATS = 15, 3
SECONDS_PER_FIGURE = 1.5
"""A figure whose runs would take longer is the median of fewer runs."""


@dataclass(frozen=True)
class Timing:
    """What one candidate takes at one size."""

    forward: float
    """CPU milliseconds of the image alone: median, as the others."""
    forward_backward: float
    """The image and the gradients of all Gaussians."""
    step: float
    """A training step: these, L1 and SSIM, fused Adam."""
    best_step: float
    """The fastest step."""
    memory_mb: float
    """Largest resident memory beyond the interpreter's with its libraries, scene and optimiser included."""


def cpu_times(call: Callable[[], object], repeats: int, warm_up: int = 1) -> tuple[float, float]:
    """Median and best CPU milliseconds of ``call``, after ``warm_up`` runs."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times), min(times)


def _timed(call: Callable[[], object], slow: bool) -> tuple[float, float]:
    """Median and best after a run to warm up: of one run where the candidate is slow, else of as many as fit."""
    if slow:
        return cpu_times(call, repeats=1)
    once = cpu_times(call, repeats=1)[1]
    return cpu_times(call, max(LEAST_REPEATS, min(REPEATS, int(1e3 * SECONDS_PER_FIGURE / once))), warm_up=0)


def measure(candidate: Candidate, size: RenderSize) -> Timing:
    """Time a candidate at a size in this process."""
    before = _peak_memory_mb()
    request, leaves = trainable(surface_scene(size.count, size.side))
    generator = torch.Generator().manual_seed(1)
    target = torch.rand(size.side, size.side, 3, generator=generator)
    optimizer = torch.optim.Adam(leaves, lr=1e-5, fused=True)
    weights: list[torch.Tensor] = []

    def forward() -> None:
        with torch.no_grad():
            image = candidate.render(request)
        if not weights:
            weights.append(torch.randn(image.shape, generator=generator))

    def both() -> None:
        optimizer.zero_grad()
        candidate.render(request).backward(weights[0])

    def step() -> None:
        optimizer.zero_grad()
        rgb = candidate.render(request)[0, ..., :3]
        (0.8 * (rgb - target).abs().mean() + 0.2 * (1 - ssim(rgb, target))).backward()
        optimizer.step()

    (image, _), (gradients, _), (median, best) = (_timed(call, candidate.slow) for call in (forward, both, step))
    return Timing(image, gradients, median, best, _peak_memory_mb() - before)


def measure_apart(candidate: Candidate, size: RenderSize, threads: int) -> Timing | str:
    """`measure` in a fresh process, so that memory is this size's own. A line that says why where it fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks._measure"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_timing, args=(sender, candidate, size, threads))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return f"its process ended with exit code {process.exitcode}"
    finally:
        process.join()


def _send_timing(sender: Connection, candidate: Candidate, size: RenderSize, threads: int) -> None:
    torch.set_num_threads(threads)
    if isinstance(candidate, OurKernels):
        os.environ[CHOICE_VARIABLE] = candidate.variant  # SSIM, too
    try:
        sender.send(measure(candidate, size))
    except Exception as error:  # foreign code may raise anything, and one size must not end the others
        sender.send(f"{type(error).__name__}: {error}")


def _peak_memory_mb() -> float:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
