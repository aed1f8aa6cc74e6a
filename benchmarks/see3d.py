"""What a joint pass of See3D costs on this machine's GPU, with random weights of the published sizes.

    python -m benchmarks.see3d                       # 18 pictures at 512 pixels, and 8 at 1024 (the SR stage)
    python -m benchmarks.see3d --frames 25 --side 512
    python -m benchmarks.see3d --small               # narrow networks at 64 pixels on the CPU: only that it runs

Weights make no difference to memory or time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks._machine import machine_line
from benchmarks._see3d import measure, random_pipeline
from closeup_ns.refine.see3d.schedule import timesteps
from closeup_ns.refine.see3d.stage import BASE, SR


def line(frames: int, side: int, small: bool, steps: int) -> str:
    """A line about one pass: memory and seconds, or that it does not fit."""
    device = torch.device("cpu" if small else "cuda")
    stage = SR if side == SR.side else BASE
    evaluations = len(timesteps(stage.steps))
    name = f"{frames} pictures at {side}x{side}: "
    try:
        told = measure(
            random_pipeline(torch.float32 if small else torch.float16, device, small, stage),
            frames,
            side,
            steps,
            device,
        )
    except torch.cuda.OutOfMemoryError as error:
        return f"{name}out of memory: {str(error).splitlines()[0]}"
    finite = "" if told.is_finite else ", NOT FINITE"
    return (
        f"{name}{told.peak_bytes / 2**30:.2f} GiB at most, {told.step_seconds:.3f} s a step, "
        f"{told.seconds(evaluations):.1f} s for {evaluations} steps{finite} (from {steps} steps asked for)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each pass; 1 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="references and targets of a pass; default: the usual passes")
    parser.add_argument("--side", type=int, default=BASE.side, help="of the pictures, with --frames")
    parser.add_argument("--steps", type=int, default=6, help="denoising steps asked for")
    parser.add_argument("--small", action="store_true", help="narrow networks on the CPU")
    chosen = parser.parse_args(arguments)
    usual = [(4, 64)] if chosen.small else [(18, BASE.side), (SR.frames, SR.side)]
    print(machine_line(torch.get_num_threads()))
    if not chosen.small and not torch.cuda.is_available():
        print(f"torch.cuda.is_available() is False (torch {torch.__version__}): nothing was measured.")
        return 1
    for frames, side in usual if chosen.frames is None else [(chosen.frames, chosen.side)]:
        print(line(frames, side, chosen.small, chosen.steps), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
