"""CPU time of our rasteriser against a tiled PyTorch loop: `python -m benchmarks.raster [--size 20000x256 100000x512]`.

Times are CPU milliseconds of this process (median, then best), which a busy machine disturbs less than wall time. The
scene is like a trained one: flat discs on a sphere, a wall and a floor.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closeup_ns.rendering.backend import describe_backend
from closeup_ns.rendering.cpu import rasterize_cpu
from closeup_ns.rendering.reference import rasterize_reference
from closeup_ns.rendering.request import RasterRequest
from closeup_ns.rendering.ssim import ssim

LEAVES = ("means", "quats", "scales", "opacities", "colors")
AIM_STEP_MS, AIM_RATIO = 15.0, 80.0


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
        height=side, near_plane=0.01, far_plane=1e10, radius_clip=0.0, eps2d=0.3, sh_degree=3, backgrounds=None,
        render_mode="RGB+ED", absgrad=True, rasterize_mode="antialiased",
    )  # fmt: skip


def cpu_times(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and best CPU milliseconds of ``work``, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - started))
    return statistics.median(times), min(times)


def trainable(request: RasterRequest) -> tuple[RasterRequest, list[Tensor]]:
    """The request with its Gaussians as leaves."""
    leaves = [getattr(request, name).clone().requires_grad_() for name in LEAVES]
    return replace(request, **dict(zip(LEAVES, leaves))), leaves


def measure(request: RasterRequest, slow_repeats: int) -> dict[str, tuple[float, float]]:
    """CPU times of our forward, forward and backward, and whole step, and of the PyTorch loop."""
    request, leaves = trainable(request)
    weights = torch.randn(1, request.height, request.width, 4)
    target = torch.rand(request.height, request.width, 3)
    optimizer = torch.optim.Adam(leaves, lr=1e-5, fused=True)

    def forward(render: Callable[[RasterRequest], tuple[Tensor, Tensor, dict]]) -> Tensor:
        with torch.no_grad():
            return render(request)[0]

    def both(render: Callable[[RasterRequest], tuple[Tensor, Tensor, dict]]) -> None:
        optimizer.zero_grad()
        render(request)[0].backward(weights)

    def step() -> None:
        optimizer.zero_grad()
        image, _, info = rasterize_cpu(request)
        info["means2d"].retain_grad()
        rgb = image[0, ..., :3]
        (0.8 * (rgb - target).abs().mean() + 0.2 * (1 - ssim(rgb, target))).backward()
        optimizer.step()

    result = {
        "forward": cpu_times(lambda: forward(rasterize_cpu), 15),
        "forward+backward": cpu_times(lambda: both(rasterize_cpu), 15),
        "training step": cpu_times(step, 15),
    }
    if slow_repeats:
        result["PyTorch forward"] = cpu_times(lambda: forward(rasterize_reference), slow_repeats)
        result["PyTorch forward+backward"] = cpu_times(lambda: both(rasterize_reference), slow_repeats)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", default=["20000x256", "100000x512"], help="Gaussians x pixels on a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slow-repeats", type=int, default=1, help="runs of the PyTorch loop; 0 leaves it out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(describe_backend("cpu"))
    for size in arguments.size:
        count, side = (int(part) for part in size.split("x"))
        result = measure(surface_scene(count, side), arguments.slow_repeats)
        print(f"\n{count} Gaussians, {side}x{side}, SH degree 3, RGB + depth, antialiased, absgrad")
        for name, (median, best) in result.items():
            print(f"  {name:26s} {median:9.1f} ms   best {best:9.1f} ms")
        if "PyTorch forward" in result:
            for name in ("forward", "forward+backward"):
                ratio = result[f"PyTorch {name}"][0] / result[name][0]
                print(f"  {name:26s} {ratio:9.0f} times faster than the PyTorch loop (aim: {AIM_RATIO:.0f})")
        if size == "20000x256":
            print(f"  aim of the training step   {AIM_STEP_MS:9.1f} ms")


if __name__ == "__main__":
    main()
