"""Plan a round's views (4.3.1, 4.3.2): anchors, frontier and to-be-updated views for each target."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.data.eval_cameras import read_cameras
from closeup_ns.model.cameras import to_model_frame
from closeup_ns.planning.plan import KnownView, RoundPlan, plan_round
from closeup_ns.planning.target import Target
from closeup_ns.progress import bar, watching
from closeup_ns.refine.protocol import Refiner
from closeup_ns.rounds.known import consistent_views
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.layout import StoredPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.view import View


def plan_views(
    run: Run, store: RoundStore, number: int, targets: Sequence[Target], refiner: Refiner
) -> list[RoundPlan]:
    """A plan of round ``number`` for each target: the stored one, or a new one, which is stored."""
    saved = store.load_plan(number)
    if saved is not None:
        return saved.plans
    known, planner, zoom = known_views(run, store, number, refiner), run.settings.planner, run.settings.schedule.zoom
    frontier, previous, plans = _given_frontier(run, number), store.load_plan(number - 1), []
    for index, target in enumerate(targets):
        generator = torch.Generator().manual_seed(run.settings.seed + 1000 * number + index)
        anchors = [] if previous is None else [anchor.name for anchor in previous.plans[index].anchors]
        # Rendering is what planning spends its time on: the known views, the frontier, the candidates.
        with bar(f"planning round {number}", len(known) + planner.anchors + planner.candidates) as advance:
            render = watching(run.render, advance)
            plan = plan_round(number, zoom, target, known, render, planner, generator, anchors, frontier)
        for warning in plan.warnings:
            CONSOLE.print(f"[yellow]Plan: {escape(warning)}")
        plans.append(plan)
    store.save_plan(number, StoredPlan(plans, known))
    return plans


def known_views(run: Run, store: RoundStore, number: int, refiner: Refiner) -> list[KnownView]:
    """What planning round ``number`` may build on: photographs, native views, and earlier rounds' views.

    A generator's references may only be views that the model agrees with.
    """
    data = run.photographs
    known = [KnownView(f"train/{name}", view, True) for name, view in zip(data.photograph_names(), data.train_views())]
    known += [KnownView(view.name, data.native_view(view), True) for view in data.native]
    earlier = list(data.injected)
    if refiner.generates and earlier:
        consistent = consistent_views(run, store, number)
        earlier = [view for view in earlier if view.name in consistent]
    return known + [KnownView(view.name, view.view, False) for view in earlier]


def _given_frontier(run: Run, number: int) -> list[View] | None:
    """The cameras that the user gave as the first round's frontier, in the model's frame."""
    if run.settings.frontier_cameras is None or number > 1:
        return None
    transform, scale = run.photographs.frame()
    cameras = read_cameras(run.settings.frontier_cameras)
    return [to_model_frame(camera.view, transform, scale).to(dtype=torch.float32) for camera in cameras]
