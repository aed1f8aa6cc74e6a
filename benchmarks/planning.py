"""How long planning takes, on an analytic scene whose cost is printed apart: `python -m benchmarks.planning`."""

from __future__ import annotations

import time

import torch

from closeup_ns.planning.plan import KnownView, PlannerConfig, plan_round
from closeup_ns.planning.selection import select_views
from closeup_ns.planning.target import target_automatic
from tests.scenes import analytic_renderer, facing_views


def report_plan(count: int) -> None:
    """Time one planned round over ``count`` known views."""
    render, views = analytic_renderer(), facing_views(count, target=(0.25, 0.0, 3.6), dtype=torch.float32)
    known = [KnownView(f"{index:04d}", view, True) for index, view in enumerate(views)]
    target = target_automatic(views, render)
    started = time.process_time()
    plan = plan_round(1, 3.0, target, known, render, PlannerConfig(), torch.Generator().manual_seed(0))
    busy = time.process_time() - started
    stages = ", ".join(f"{name} {value:.2f}" for name, value in plan.seconds.items())
    print(f"plan a round, {count} known views: {busy:.2f} s of CPU ({stages}); {len(plan.candidates)} candidates")


def report_selection() -> None:
    """Time selection at n=300, k=8."""
    generator = torch.Generator().manual_seed(0)
    weights, places = torch.rand(300, generator=generator), torch.rand(300, 3, generator=generator)
    overlap = torch.exp(-3.0 * torch.cdist(places, places))
    started = time.process_time()
    for _ in range(20):
        select_views(weights, overlap, 8, eligible_fraction=0.0)
    seconds = (time.process_time() - started) / 20
    ratios = []
    for n in (12, 16, 20, 24):
        part, pairs = weights[:n], overlap[:n, :n]
        chosen = objective_value(part, pairs, select_views(part, pairs, 5, eligible_fraction=0.0))
        ratios.append(float(chosen / objective_value(part, pairs, brute_force(part, pairs, 5))))
    print(
        f"selection, n=300, k=8: {seconds * 1e3:.1f} ms of CPU; "
        f"worst share of the optimum, n=12 to 24, k=5: {min(ratios):.4f}"
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    for count in (34, 300):
        report_plan(count)
    report_selection()
