"""Check everything that needs a GPU with one command: `python tools/gpu_check.py [--minutes 25]`.

Builds gsplat 1.4.0's kernels, renders the same Gaussians with them and with our CPU kernels (3DGS classic and
antialiased, 2DGS: images, depth, alpha, every gradient), times gsplat, takes See3D's network at full size with random
weights through a joint pass of 18 frames (memory, time, one step against the CPU), trains the demo scene on CUDA
through `ns-train closeup-gs-quick`, and evaluates that run on the GPU and on the CPU. One row per stage is printed and
kept in OUTPUT/gpu_check.json; a stage that fails leaves its reason, and the rest goes on.

Exit code: 0 where all went well, 1 where a row failed or was skipped, 2 where this machine has no CUDA to check.
`--dry-run` takes the same way through the code without a GPU: the PyTorch reference stands where gsplat would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._machine import machine_line
from benchmarks._scene import RenderSize, surface_scene
from tools import _cuda, _parity, _see3d, _training
from tools._parity import METHODS, Side
from tools._report import Figures, Report, Row, Skipped
from tools._training import TrainingPlan

if TYPE_CHECKING:
    from closeup_ns.refine.see3d.pipeline import See3DPipeline

CUDA_PARITY, CPU_PARITY = RenderSize(20_000, 512), RenderSize(600, 64)
CUDA_TIMES, CPU_TIMES = (RenderSize(100_000, 512), RenderSize(1_000_000, 1024)), (RenderSize(600, 64),)
STAGES = ("build", "parity", "time", "see3d", "train")


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line, ``given`` in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu_check"), help="folder of results and logs")
    parser.add_argument("--minutes", type=float, default=25.0, help="nothing begins or goes on after that")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="which stages to run")
    parser.add_argument("--base-steps", type=int, help="steps of the base phase; default 400, 40 in a dry run")
    parser.add_argument("--round-steps", type=int, help="steps of the round; default 100, 10 in a dry run")
    parser.add_argument("--parity-size", type=RenderSize.parse, help="Gaussians x pixels of the parity scenes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is the same as --dry-run")
    parser.add_argument("--dry-run", action="store_true", help="all of it without a GPU, the reference for gsplat")
    return parser.parse_args(given)


class Check:
    """The stages of one check, in order."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.on_gpu = arguments.device == "cuda" and not arguments.dry_run
        self.arguments = arguments
        device = "cuda" if self.on_gpu else "cpu"
        about = {"machine": machine_line(torch.get_num_threads()), **_cuda.about_device(device)}
        self.report = Report(arguments.output / "gpu_check.json", arguments.minutes, about)
        self.ours = Side("ours", "cpu", "cpu")
        self.theirs = Side("gsplat", "cuda", "gsplat") if self.on_gpu else Side("reference", "cpu", "torch")
        base, each = (400, 100) if self.on_gpu else (40, 10)
        steps = arguments.base_steps or base, arguments.round_steps or each
        self.plan = TrainingPlan(arguments.output / device, device, *steps, tiny=not self.on_gpu)
        self.is_built = True

    def run(self) -> int:
        """All stages that were asked for; the exit code."""
        print(*(f"{key}: {value}" for key, value in self.report.about.items()), sep="\n", flush=True)
        for stage in STAGES:
            if stage in self.arguments.stages:
                getattr(self, f"stage_{stage}")()
        counts = {status: sum(row.status == status for row in self.report.rows) for status in
                  ("ok", "reported", "failed", "skipped")}  # fmt: skip
        print(", ".join(f"{count} {status}" for status, count in counts.items()) + f"; {self.report.path}")
        return self.report.exit_code()

    def stage_build(self) -> None:
        """A GPU that computes, and gsplat's kernels on it."""
        if not self.on_gpu:
            self.report.run("build", "gsplat", lambda: {"dry_run": "the reference stands for it"}, demanded=False)
            return
        launches = self.report.run("build", "the GPU computes", _cuda.check_launches)
        log = self.arguments.output / "build.log"
        built = self.report.run("build", "gsplat", lambda: _cuda.build_gsplat(log, self.report.seconds_left()))
        self.is_built = launches.status == built.status == "ok"

    def stage_parity(self) -> None:
        """The same Gaussians on both sides: first where they must agree, then as they are in a trained scene."""
        size = self.arguments.parity_size or (CUDA_PARITY if self.on_gpu else CPU_PARITY)
        request = _parity.parity_scene(size.count, size.side)
        for method in METHODS:
            strict = partial(_parity.strict_parity, self.ours, self.theirs, request, method)
            self._if_built("parity", f"{method}, within three sigma", strict)
        for method in METHODS:
            general = partial(_parity.general_parity, self.ours, self.theirs, request, method)
            self._if_built("parity", f"{method}, full opacity", general, demanded=False)

    def stage_time(self) -> None:
        """How long the other side takes, forward and with all gradients, and how much memory."""
        for size in CUDA_TIMES if self.on_gpu else CPU_TIMES:
            for method in METHODS:
                self._if_built("time", f"{method}, {size}", partial(self._time, size, method), demanded=False)

    def stage_train(self) -> None:
        """The demo scene through ns-train and ns-eval."""
        plan, report = self.plan, self.report
        report.run("train", "demo scene", lambda: _training.make_scene(plan), demanded=False)
        for method in _training.methods():
            self._if_built("train", method, lambda m=method: _training.train(plan, m, report.seconds_left()))
            on_device = self._if_built(
                "train", f"ns-eval {method}, {plan.device}",
                lambda m=method: _training.evaluate(plan, m, report.seconds_left(), on_cpu=not self.on_gpu),
            )  # fmt: skip
            self._if_built(
                "train", f"ns-eval {method}, GPU hidden",
                lambda m=method, row=on_device: _training.evaluate_on_both(plan, m, report.seconds_left(), row.figures),
            )  # fmt: skip

    def stage_see3d(self) -> None:
        """A joint pass of the diffusion model with random weights; it needs none of gsplat."""
        report = self.report
        kept: list[See3DPipeline] = []

        def pipeline() -> See3DPipeline:
            if not kept:
                kept.append(_see3d.make_pipeline(self.on_gpu))
            return kept[0]

        report.run("see3d", "joint pass", lambda: _see3d.measure_pass(pipeline()), demanded=self.on_gpu)
        report.run("see3d", "one step, fp16 and float32", lambda: _see3d.compare_step(pipeline()))

    def _if_built(self, stage: str, name: str, check: Callable[[], Figures], demanded: bool = True) -> Row:
        def guarded() -> Figures:
            if not self.is_built:
                raise Skipped("gsplat's kernels cannot be used, see above")
            return check()

        return self.report.run(stage, name, guarded, demanded)

    def _time(self, size: RenderSize, method: str) -> Figures:
        repeats, warm_up = (20, 5) if self.on_gpu else (1, 0)
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        passes = _parity.timed_passes(self.theirs, surface_scene(size.count, size.side), method)
        forward, both = (_cuda.milliseconds(one, self.theirs.device, repeats, warm_up) for one in passes)
        figures: dict[str, float | int | str] = {"forward_ms": forward, "forward_backward_ms": both}
        if self.on_gpu:
            figures["peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
        return figures


def main(given: list[str] | None = None) -> int:
    """Run the check and give its exit code."""
    arguments = parse_arguments(given)
    if arguments.device == "cuda" and not arguments.dry_run:
        _cuda.prepare_environment()
        lacking = _cuda.missing()
        if lacking:
            print(f"gpu_check: nothing to check here: {'; '.join(lacking)}. --dry-run needs no GPU.", file=sys.stderr)
            return 2
    return Check(arguments).run()


if __name__ == "__main__":
    sys.exit(main())
