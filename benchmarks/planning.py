"""How long planning takes: `python benchmarks/planning.py [--known 34 300] [--threads 2] [--renderer module:factory]`.

Renders an analytic scene, whose cost is printed apart, or any renderer: ``module:factory`` names a function without
arguments that returns a `Renderer` and a list of known views of one scene, for example one that loads a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from closeup_ns.planning.plan import KnownView, PlannerConfig, plan_round
from closeup_ns.planning.selection import select_views
from closeup_ns.planning.target import target_automatic
from closeup_ns.views.reliability import Observation, reliable_pixels
from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View
from tests.scenes import analytic_renderer, facing_views


class Counted:
    """A renderer that counts its calls and their time."""

    def __init__(self, render: Renderer) -> None:
        self.render, self.calls, self.seconds = render, 0, 0.0

    def __call__(self, view: View) -> Rendered:
        started = time.perf_counter()
        rendered = self.render(view)
        self.seconds += time.perf_counter() - started
        self.calls += 1
        return rendered


def best_of(call: Callable[[], object], repeats: int = 5) -> float:
    """Shortest time of ``call`` in seconds of CPU, which other processes disturb less than the wall clock."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def report_plan(render: Renderer, views: list[View]) -> None:
    """Time one planned round over ``views``."""
    known = [KnownView(f"{index:04d}", view, True) for index, view in enumerate(views)]
    target = target_automatic(views, render)
    counted = Counted(render)
    started = time.process_time()
    plan = plan_round(1, 3.0, target, known, counted, PlannerConfig(), torch.Generator().manual_seed(0))
    busy = time.process_time() - started
    print(
        f"plan a round, {len(views)} known views: {busy:.2f} s of CPU, with {counted.calls} renders in "
        f"{counted.seconds:.2f} s; {len(plan.candidates)} candidates, {len(plan.updates)} to update"
    )
    for warning in plan.warnings:
        print(f"  warning: {warning}")


def report_selection() -> None:
    """Time selection at n=300, k=8."""
    generator = torch.Generator().manual_seed(0)
    weights, places = torch.rand(300, generator=generator), torch.rand(300, 3, generator=generator)
    overlap = torch.exp(-3.0 * torch.cdist(places, places))
    seconds = best_of(lambda: select_views(weights, overlap, 8), 20)
    print(f"selection, n=300, k=8: {seconds * 1e3:.1f} ms of CPU")


def report_reliability(observations: int = 30, size: tuple[int, int] = (504, 378)) -> None:
    """Time reliable pixels of one view at 3x against ``observations`` photographs."""
    render = analytic_renderer()
    known = facing_views(observations, size=size, dtype=torch.float32)
    seen = [Observation(view, (r := render(view)).color.permute(2, 0, 1), r.depth) for view in known]
    view = facing_views(1, spread=(0.1, 0.1, 0.0), size=size, dtype=torch.float32)[0]
    c2w = view.c2w.clone()
    c2w[2, 3] = 4.0 - 4.0 / 3.0
    view = View(view.K, c2w, view.width, view.height)
    rendered = render(view)
    seconds = best_of(lambda: reliable_pixels(view, rendered.depth, rendered.alpha, seen), 3)
    print(f"reliable pixels, one view of {size[0]} x {size[1]}, {observations} photographs: {seconds:.2f} s of CPU")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--known", type=int, nargs="+", default=[34, 300], help="numbers of known views (analytic scene)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads for torch")
    parser.add_argument("--renderer", help="module:factory instead of the analytic scene")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads")
    if options.renderer:
        module, _, factory = options.renderer.partition(":")
        report_plan(*getattr(importlib.import_module(module), factory)())
    else:
        for count in options.known:
            report_plan(analytic_renderer(), facing_views(count, target=(0.25, 0.0, 3.6), dtype=torch.float32))
    report_selection()
    report_reliability()


if __name__ == "__main__":
    main()
