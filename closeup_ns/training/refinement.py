"""Render and refine a round's views, one at a time, each on disk before the next (4.2, 4.3.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from closeup_ns.planning.plan import RoundPlan
from closeup_ns.refine.gate import judge
from closeup_ns.refine.refiner import Refiner, RefineRequest
from closeup_ns.training.progress import track
from closeup_ns.training.store import RoundStore
from closeup_ns.training.store_view import StoredView
from closeup_ns.views.reliability import Observation, reliable_pixels
from closeup_ns.views.view import View

if TYPE_CHECKING:
    from closeup_ns.training.pipeline import CloseupPipeline


def _nothing() -> None:
    """What is done between two views where nobody waits."""


@torch.no_grad()
def observations(pipeline: CloseupPipeline, between: Callable[[], None] = _nothing) -> list[Observation]:
    """The photographs at the model's own exposure, each with the model's z-depth from where it was taken.

    ``between`` is called before each of them.
    """
    model, data = pipeline.model, pipeline.datamanager
    result = []
    for index in track(range(len(data.train_dataset)), "depth of photographs"):
        between()
        view, photograph = data.train_view(index), data.photograph(index)
        if model.exposure is not None:
            photograph = model.exposure.undo(photograph, index)
        result.append(Observation(view, photograph.permute(2, 0, 1).contiguous(), model.render_view(view).depth))
    return result


def planned_views(plan: RoundPlan, index: int, plans: int, with_frontier: bool) -> dict[str, View]:
    """Names and views of what a plan refines; the name starts with the target's index."""
    views = {f"t{index}_update_{number:02d}": view for number, view in enumerate(plan.updates)}
    if with_frontier:
        views.update({f"t{index}_frontier_{number:02d}": view for number, view in enumerate(plan.frontier)})
    return views


@torch.no_grad()
def refine_and_store(
    pipeline: CloseupPipeline,
    store: RoundStore,
    number: int,
    todo: dict[str, View],
    photographs: Sequence[Observation],
    refiner: Refiner,
    between: Callable[[], None] = _nothing,
) -> None:
    """Refine every view that the store does not hold; a view once stored is never refined again.

    ``between`` is called before each of them.
    """
    done = set(store.views(number))
    missing = {name: view for name, view in todo.items() if name not in done}
    for name, view in track(missing.items(), "refining close-ups"):
        between()
        began = time.perf_counter()
        view = view.to(pipeline.device)
        rendered = pipeline.model.render_view(view)
        mask = reliable_pixels(view, rendered.depth, rendered.alpha, photographs, pipeline.config.reliability)
        request = RefineRequest([view], [rendered], [mask], list(photographs), pipeline.config.seed)
        refined = refiner.refine(request)[0]
        decision = judge(refined, rendered, mask, pipeline.config.gate, refiner.generates)
        store.save_view(
            number,
            name,
            StoredView(
                view=view,
                image=refined.image,
                render=rendered.color,
                reliable=mask,
                real=refined.real,
                weight=refined.weight,
                decision=decision,
                seconds=time.perf_counter() - began,
                notes=refined.notes,
            ),
        )
