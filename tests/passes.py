"""A round of four close-ups of the analytic scene, a refiner that takes several at once, and no Gaussians at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.refine.protocol import RefinedView, RefineRequest
from closeup_ns.rounds.settings import FineTuneConfig
from closeup_ns.views.view import View, move_closer
from tests.scenes import analytic_renderer, facing_views

SIZE = (32, 24)
POINT = torch.tensor([0.0, 0.0, 4.0])


def a_run(photographs: int = 4) -> Any:
    """What refinement needs of a run; its model is the scene itself."""
    render, views = analytic_renderer(), facing_views(photographs, size=SIZE)
    data = SimpleNamespace(
        train_view=lambda index: views[index],
        train_views=lambda: views,
        photograph=lambda index: render(views[index]).color,
        shown=lambda index: None,
        native=[],
        photograph_names=lambda: [f"{index}.png" for index in range(photographs)],
    )
    settings = SimpleNamespace(fine_tune=FineTuneConfig(), seed=7, refiner=None)
    model = SimpleNamespace(render_view=render, unexposed=lambda photograph, index: photograph)
    return SimpleNamespace(
        model=model,
        photographs=data,
        settings=settings,
        device=torch.device("cpu"),
        render=lambda view: model.render_view(view),
    )


def close_views(count: int, zoom: float) -> list[View]:
    return [move_closer(view, POINT, zoom) for view in facing_views(count, size=SIZE, seed=3)]


def a_plan(anchors: Sequence[str] = ("train/0.png", "train/1.png"), updates: int = 2, frontier: int = 2) -> RoundPlan:
    """Two to-be-updated and two frontier views."""
    known = [KnownView(name, view, True) for name, view in zip(anchors, facing_views(len(anchors), size=SIZE))]
    return RoundPlan(
        round_index=1, zoom_total=3.0, radius=1.0, previous_radius=3.0, target=POINT.tolist(), anchors=known,
        anchor_coverage=[1.0] * len(known), frontier=close_views(frontier, 3.0), frontier_seeds=[],
        updates=close_views(updates, 2.0), update_weights=[1.0] * updates, candidates=[],
    )  # fmt: skip


class JointRefiner:
    """Gives the renders back a little brighter, remembers what it was asked, and does as it is told per view."""

    name, generates = "joint", True

    def __init__(self, frames: int = 6, **per_view: Callable[[RefinedView], RefinedView]) -> None:
        self.frames, self.per_view = frames, per_view
        self.requests: list[RefineRequest] = []

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        self.requests.append(request)
        results = []
        for name, render in zip(request.names, request.renders, strict=True):
            image = (render.color + 0.002).clamp(0, 1)
            everything = torch.ones_like(render.alpha)
            refined = RefinedView(image, everything.bool(), everything, notes={"seed": float(request.seed)})
            results.append(self.per_view.get(name, lambda same: same)(refined))
        return results

    def close(self) -> None: ...
