"""CPU time of our rasteriser, of a tiled PyTorch loop and of any other: `python -m benchmarks.raster [--full]`.

Times are CPU milliseconds (medians), which a busy machine disturbs less than wall time; every figure is measured in a
process of its own. The scene is like a trained one: flat discs on a sphere, a wall and a floor; SH degree 3, RGB and
expected depth, antialiased, absolute gradients on. The output is a Markdown table and the ratios against the aims.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import torch

from benchmarks._candidates import Candidate, Other, OurKernels, OurSurfels, TorchLoop, usable
from benchmarks._machine import machine_line
from benchmarks._measure import Timing, measure_apart
from benchmarks._scene import RenderSize
from closeup_ns.rendering.build import runnable_variants

SIZES = "20kx256 20kx512 100kx256 100kx512 100kx1024 400kx512"
FULL_SIZES = " ".join(f"{count}x{side}" for count in ("20k", "100k", "300k", "1M") for side in (256, 512, 1024))
AIM_STEP_MS, AIM_RATIO, AIM_SURFELS = 15.0, 80.0, 2.5
AIM_STEP_SIZE, AIM_RATIO_SIZE = RenderSize(20_000, 256), RenderSize(100_000, 512)
HEAD = ("Gaussians, image", "rasteriser", "forward", "forward + backward", "step", "memory")

Timings = dict[tuple[str, RenderSize], Timing]
"""By the candidate's name and what it rendered."""


def row(name: str, size: RenderSize, timing: Timing) -> str:
    """A line of the table."""
    times = [f"{value:.1f}" for value in (timing.forward, timing.forward_backward, timing.step)]
    return "| " + " | ".join([str(size), name, *times, f"{timing.memory_mb:.0f} MB"]) + " |"


def run_all(
    candidates: Sequence[Candidate], sizes: Sequence[RenderSize], loop_limit: RenderSize, threads: int
) -> Timings:
    """Measure every candidate on every size that is not too large for it; each line is printed when it is known."""
    timings: Timings = {}
    for size in sizes:
        for candidate in candidates:
            if candidate.slow and (size.count > loop_limit.count or size.side > loop_limit.side):
                continue
            timing = measure_apart(candidate, size, threads)
            if isinstance(timing, str):
                print(f"{size}, {candidate.name}: failed: {timing}", flush=True)
                continue
            timings[candidate.name, size] = timing
            print(row(candidate.name, size, timing), flush=True)
    return timings


def ratios(timings: Mapping[tuple[str, RenderSize], Timing], candidates: Sequence[Candidate]) -> list[str]:
    """The best of our kernels against everything else, size by size, and against the aims."""
    ours = next((candidate for candidate in candidates if isinstance(candidate, OurKernels)), None)
    if ours is None:
        return []
    lines = []
    for (name, size), timing in timings.items():
        best = timings.get((ours.name, size))
        if name == ours.name or best is None:
            continue
        forward, both = timing.forward / best.forward, timing.forward_backward / best.forward_backward
        aim = f"; aim {AIM_RATIO:.0f}" if name == TorchLoop().name and size == AIM_RATIO_SIZE else ""
        aim = f"; aim at most {AIM_SURFELS}" if name == OurSurfels().name else aim
        lines.append(f"{size}: {name} takes {forward:.1f} times ours forward, {both:.1f} both ways{aim}")
    step = timings.get((ours.name, AIM_STEP_SIZE))
    if step is not None:
        lines.append(f"{AIM_STEP_SIZE}: step {step.step:.1f} ms, best {step.best_step:.1f} (aim {AIM_STEP_MS:.0f})")
    return lines


def chosen_candidates(variants: str, others: Sequence[str]) -> tuple[list[Candidate], list[str]]:
    """The candidates that a command line asks for and that run here, and lines about the others."""
    names = {"best": runnable_variants()[:1], "all": runnable_variants()}.get(variants, variants.split(","))
    return usable([*map(OurKernels, names), OurSurfels(), TorchLoop(), *map(Other, others)])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", "--size", nargs="+", help=f"Gaussians x pixels on a side, default: {SIZES}")
    parser.add_argument("--full", action="store_true", help="20k to 1M Gaussians at 256 to 1024 pixels")
    parser.add_argument("--variant", default="best", help="instruction sets: best, all, or a list as avx512,avx2")
    parser.add_argument("--other", nargs="*", default=[], help="rasterisers with the same call, as module:function")
    parser.add_argument("--loop-limit", default="100kx512", help="largest size of the PyTorch loop; 0x0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    sizes = [RenderSize.parse(size) for size in arguments.sizes or (FULL_SIZES if arguments.full else SIZES).split()]
    candidates, reasons = chosen_candidates(arguments.variant, arguments.other)
    print(machine_line(arguments.threads), *reasons, "", "CPU milliseconds.", "", sep="\n")
    print("| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|", sep="\n", flush=True)
    timings = run_all(candidates, sizes, RenderSize.parse(arguments.loop_limit), arguments.threads)
    print("", *(f"* {line}" for line in ratios(timings, candidates)), sep="\n")
    print(f"at the end: {machine_line(arguments.threads)}")


if __name__ == "__main__":
    main()
