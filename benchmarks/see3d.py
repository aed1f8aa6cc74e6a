"""What a joint pass of See3D costs: memory and operations, COMPUTED; with --device cuda also MEASURED.

    python -m benchmarks.see3d                                   # the usual passes, without a GPU, in seconds
    python -m benchmarks.see3d --frames 18 --size 512            # one of them
    python -m benchmarks.see3d --frames 18 --device cuda         # and on a GPU, with random weights of full size

Computed are the bytes of the tensors that are live at once while the pipeline's own step runs with tensors that have
sizes and no content (closeup_ns/refine/see3d/budget.py). Not in it: the CUDA context (some hundred MB), the
allocator's rounding, and what a kernel takes for itself while it runs. Weights make no difference to either figure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from benchmarks._machine import machine_line
from benchmarks._see3d import full_size_pipeline, measure
from closeup_ns.refine.see3d.budget import GIB, Budget, JointPass, compute_budget
from closeup_ns.refine.see3d.schedule import timesteps

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
AIM_FRAMES, AIM_SIDE, AIM_BYTES = 18, 512, 12e9
USUAL = ((18, 512), (25, 512), (8, 1024), (18, 1024))
FINE_SIDE = 1024
"""From here on it is the SR stage's pass, of 30 steps."""
HEAD = (
    "frames",
    "pixels",
    "guidance",
    "weights",
    "step",
    "encode",
    "decode",
    "peak",
    "offloaded",
    "TFLOP/step",
    "PFLOP",
)
WIDTHS = (6, 6, 10, 7, 6, 6, 6, 6, 9, 10, 6)


def row(asked: JointPass, budget: Budget) -> tuple[str, ...]:
    """A line of the table; memory in GiB."""
    parts = (sum(budget.weights.values()), budget.denoising, budget.encoding, budget.decoding, budget.peak(),
             budget.peak(offloaded=True))  # fmt: skip
    flops = budget.step_flops
    return (
        str(asked.frames), str(asked.height), "batched" if asked.batched_guidance else "sequential",
        *(f"{part / GIB:.2f}" for part in parts), f"{flops / 1e12:.1f}", f"{flops * evaluations(asked) / 1e15:.2f}",
    )  # fmt: skip


def evaluations(asked: JointPass) -> int:
    """Steps of a pass by the published schedule."""
    return len(timesteps(30 if asked.height >= FINE_SIDE else 50))


def spaced(cells: Sequence[str]) -> str:
    """Cells in columns."""
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS))


def aim_line(budgets: dict[JointPass, Budget]) -> str | None:
    """Whether the aim of 12 GB is met as computed; None where that pass was not asked for."""
    aim = JointPass(AIM_FRAMES, AIM_SIDE, AIM_SIDE)
    if aim not in budgets:
        return None
    peak = budgets[aim].peak()
    said = "below" if peak < AIM_BYTES else "NOT below"
    return (
        f"{AIM_FRAMES} frames at {AIM_SIDE}x{AIM_SIDE} in fp16, everything resident: {peak / 1e9:.2f} GB COMPUTED, "
        f"{said} the aim of {AIM_BYTES / 1e9:.0f} GB"
    )


def measured_lines(cases: Sequence[JointPass], steps: int, offload: bool) -> list[str]:
    """Each case on the GPU, with random weights of full size; a case that does not fit is said so."""
    device = torch.device("cuda")
    pipeline = full_size_pipeline(cases[0].dtype, device)
    pipeline.set_progress_bar_config(disable=True)
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    lines = []
    for asked in cases:
        guidance = "batched" if asked.batched_guidance else "sequential"
        name = f"{asked.frames} frames at {asked.width}x{asked.height}, {guidance}, MEASURED on " + (
            f"{torch.cuda.get_device_name(device)}: ")  # fmt: skip
        try:
            told = measure(pipeline, asked, steps, device)
        except torch.cuda.OutOfMemoryError as error:
            lines.append(f"{name}out of memory: {str(error).splitlines()[0]}")
            continue
        lines.append(
            f"{name}{told.peak_bytes / GIB:.2f} GiB allocated at most, {told.reserved_bytes / GIB:.2f} reserved, "
            f"{told.step_seconds:.3f} s a step, {told.seconds(evaluations(asked)):.1f} s for {evaluations(asked)} steps"
            f"{'' if told.is_finite else ', NOT FINITE'} (from {steps} steps asked for)"
        )
    return lines


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, help="references and targets of a pass; default: the usual passes")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures, with --frames; a multiple of 64")
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--device", choices=("none", "cuda"), default="none", help="cuda: measure as well")
    parser.add_argument("--steps", type=int, default=6, help="denoising steps asked for when measuring")
    parser.add_argument("--offload", action="store_true", help="measure with enable_model_cpu_offload")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 where CUDA was asked for and is not there."""
    arguments = parse_arguments(words)
    sizes = USUAL if arguments.frames is None else ((arguments.frames, arguments.size),)
    dtype = DTYPES[arguments.dtype]
    cases = [JointPass(frames, side, side, dtype, batched) for frames, side in sizes for batched in (True, False)]
    print(machine_line(torch.get_num_threads()))
    print(f"COMPUTED in {arguments.dtype}, memory in GiB:", spaced(HEAD), sep="\n", flush=True)
    budgets = {}
    for asked in cases:
        budgets[asked] = compute_budget(asked)
        print(spaced(row(asked, budgets[asked])), flush=True)
    if line := aim_line(budgets):
        print(line)
    if arguments.device != "cuda":
        print("Nothing was measured: --device cuda does that.")
        return 0
    if not torch.cuda.is_available():
        print(f"torch.cuda.is_available() is False (torch {torch.__version__}): nothing was measured.")
        return 1
    print(*measured_lines(cases, arguments.steps, arguments.offload), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
