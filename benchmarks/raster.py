"""CPU time of our rasteriser, of a tiled PyTorch loop and of any other: `python -m benchmarks.raster [--full]`.

Times are CPU milliseconds (medians), which a busy machine disturbs less than wall time; every figure is measured in a
process of its own. The scene is like a trained one: flat discs on a sphere, a wall and a floor; SH degree 3, RGB and
expected depth, antialiased, absolute gradients on. The share is the useful arithmetic (benchmarks/_work.py defines it)
over what a core can do, in the time of the whole call, projection and spherical harmonics included.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks._candidates import (
    ENTRY_POINTS,
    Candidate,
    Other,
    OurKernels,
    OurSurfels,
    TorchLoop,
    installed_others,
    known_without_cpu,
    usable,
)
from benchmarks._growth import growth
from benchmarks._machine import machine_line
from benchmarks._measure import Timing, cpu_times, measure_apart
from benchmarks._scene import Case, surface_scene
from benchmarks._work import Work, backward_flops, count_work, forward_flops, measured_peak
from closeup_ns.atomic import atomic_path
from closeup_ns.rendering.build import runnable_variants

__all__ = ["cpu_times", "surface_scene"]

SIZES = "20kx256 20kx512 100kx256 100kx512 100kx1024 400kx512"
FULL_SIZES = " ".join(f"{count}x{side}" for count in ("20k", "100k", "300k", "1M") for side in (256, 512, 1024))
CHANNELS = 4
AIM_STEP_MS, AIM_RATIO, AIM_SURFELS = 15.0, 80.0, 2.5
AIM_STEP_CASE, AIM_RATIO_CASE = Case(20_000, 256), Case(100_000, 512)
HEAD = ("Gaussians, image", "rasteriser", "forward", "forward + backward", "step", "of peak, f / f+b", "memory")


@dataclass
class Results:
    """Everything that one run measured."""

    timings: dict[tuple[str, Case], Timing]
    works: dict[Case, Work]
    peaks: dict[str, float]
    """Operations per second by instruction set."""

    def shares(self, candidate: Candidate, case: Case) -> tuple[float, float] | None:
        """Useful operations of forward, and of both passes, over the peak; for our kernels alone."""
        if not isinstance(candidate, OurKernels) or case not in self.works:
            return None
        timing, pairs = self.timings[candidate.name, case], self.works[case].pairs
        forward = pairs * forward_flops(CHANNELS)
        both = forward + pairs * backward_flops(CHANNELS, absgrad=True)
        peak = self.peaks[candidate.variant] / 1e3  # per millisecond
        return forward / (timing.forward * peak), both / (timing.forward_backward * peak)

    def row(self, candidate: Candidate, case: Case) -> tuple[str, ...]:
        """A line of the table."""
        timing, shares = self.timings[candidate.name, case], self.shares(candidate, case)
        share = "" if shares is None else f"{shares[0]:.0%} / {shares[1]:.0%}"
        times = [f"{value:.1f}" for value in (timing.forward, timing.forward_backward, timing.step)]
        return (str(case), candidate.name, *times, share, f"{timing.memory_mb:.0f} MB")


def run_all(candidates: Sequence[Candidate], cases: Sequence[Case], loop_limit: Case, threads: int) -> Results:
    """Measure every candidate on every case that is not too large for it; each line is printed when it is known."""
    variants = [candidate.variant for candidate in candidates if isinstance(candidate, OurKernels)]
    results = Results({}, {}, {variant: measured_peak(variant) for variant in variants})
    for case in cases:
        results.works[case] = count_work(surface_scene(case.count, case.side))
        for candidate in candidates:
            if candidate.slow and (case.count > loop_limit.count or case.side > loop_limit.side):
                continue
            timing = measure_apart(candidate, case, threads)
            if isinstance(timing, str):
                print(f"{case}, {candidate.name}: failed: {timing}", flush=True)
                continue
            results.timings[candidate.name, case] = timing
            print("  ".join(results.row(candidate, case)), flush=True)
    return results


def summary(results: Results, candidates: Sequence[Candidate]) -> list[str]:
    """What the figures say: peak, pairs, ratios against the aims, growth."""
    lines = [
        f"peak of one core, {variant}: {peak / 1e9:.0f} GFLOP/s (independent FMA chains)"
        for variant, peak in results.peaks.items()
    ]
    lines.append(
        f"useful operations per contributing (Gaussian, pixel) pair: {forward_flops(CHANNELS)} forward, "
        f"{backward_flops(CHANNELS, absgrad=True)} backward (benchmarks/_work.py)"
    )
    for case, work in results.works.items():
        pixels = case.side**2
        lines.append(
            f"{case}: {work.pairs / 1e6:.2f} M pairs, {work.pairs / pixels:.1f} per pixel; "
            f"{work.occupancy:.0%} of the lanes of 4x4 blocks do useful work"
        )
    lines += ratios(results, candidates)
    for candidate in candidates:
        costs = {case: t.forward_backward for (name, case), t in results.timings.items() if name == candidate.name}
        fits = growth(costs)
        if fits:
            lines.append(f"{candidate.name}: forward + backward grows as " + ", ".join(map(str, fits)))
    return lines


def ratios(results: Results, candidates: Sequence[Candidate]) -> list[str]:
    """The best of our kernels against everything else, case by case, and against the aims."""
    ours = next((candidate for candidate in candidates if isinstance(candidate, OurKernels)), None)
    if ours is None:
        return []
    lines = []
    for (name, case), timing in results.timings.items():
        best = results.timings.get((ours.name, case))
        if name == ours.name or best is None:
            continue
        forward, both = timing.forward / best.forward, timing.forward_backward / best.forward_backward
        aim = f"; aim {AIM_RATIO:.0f}" if name == TorchLoop().name and case == AIM_RATIO_CASE else ""
        aim = f"; aim at most {AIM_SURFELS}" if name == OurSurfels().name else aim
        lines.append(f"{case}: {name} takes {forward:.1f} times ours forward, {both:.1f} both ways{aim}")
    step = results.timings.get((ours.name, AIM_STEP_CASE))
    if step is not None:
        lines.append(f"{AIM_STEP_CASE}: step {step.step:.1f} ms, best {step.best_step:.1f} (aim {AIM_STEP_MS:.0f})")
    return lines


def markdown(results: Results, candidates: Sequence[Candidate], machine: str, notes: Sequence[str]) -> str:
    """The table and everything about it as one Markdown text."""
    lines = [machine, "", "CPU milliseconds.", "", "| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for case in results.works:
        for candidate in candidates:
            if (candidate.name, case) in results.timings:
                lines.append("| " + " | ".join(results.row(candidate, case)) + " |")
    return "\n".join([*lines, "", *(f"* {note}" for note in notes), ""])


def chosen_candidates(variants: str, others: Sequence[str]) -> tuple[list[Candidate], list[str]]:
    """The candidates that a command line asks for and that run here, and lines about the others."""
    names = {"best": runnable_variants()[:1], "all": runnable_variants()}.get(variants, variants.split(","))
    foreign = [*map(Other, others), *installed_others()]
    kept, reasons = usable([*map(OurKernels, names), OurSurfels(), TorchLoop(), *foreign])
    if not foreign:
        reasons.append(
            f"no other CPU rasteriser to compare with ({known_without_cpu()}); "
            f"plug one in with --other module:function or an entry point in {ENTRY_POINTS}"
        )
    return kept, reasons


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", "--size", nargs="+", help=f"Gaussians x pixels on a side, default: {SIZES}")
    parser.add_argument("--full", action="store_true", help="20k to 1M Gaussians at 256 to 1024 pixels")
    parser.add_argument("--variant", default="best", help="instruction sets: best, all, or a list as avx512,avx2")
    parser.add_argument("--other", nargs="*", default=[], help="rasterisers with the same call, as module:function")
    parser.add_argument("--loop-limit", default="100kx512", help="largest case of the PyTorch loop; 0x0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="also write everything to this file")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    cases = [Case.parse(size) for size in arguments.sizes or (FULL_SIZES if arguments.full else SIZES).split()]
    candidates, reasons = chosen_candidates(arguments.variant, arguments.other)
    machine = machine_line(arguments.threads)
    print(machine, *reasons, "", "  ".join(HEAD) + "  (CPU ms)", sep="\n", flush=True)
    results = run_all(candidates, cases, Case.parse(arguments.loop_limit), arguments.threads)
    notes = summary(results, candidates) + reasons
    print("", *notes, f"at the end: {machine_line(arguments.threads)}", sep="\n")
    if arguments.markdown:
        with atomic_path(arguments.markdown) as temporary:
            temporary.write_text(markdown(results, candidates, machine, notes), encoding="utf8")


if __name__ == "__main__":
    main()
