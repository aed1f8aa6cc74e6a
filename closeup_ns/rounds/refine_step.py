"""Render and refine a round's views, pass by pass, each view on disk before the next pass (4.2, 4.3.3)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.errors import RefinerOutOfMemory
from closeup_ns.peak_memory import measured
from closeup_ns.planning.plan import RoundPlan
from closeup_ns.progress import bar, duration
from closeup_ns.refine.judging.gate import judge, keep_detail, refined_is_finite
from closeup_ns.refine.protocol import RefinedView, Refiner, RefineRequest
from closeup_ns.refine.refiner import chosen_kind
from closeup_ns.refine.results import failed
from closeup_ns.rounds.known import anchor_image, consistent_views, observations, stored_guide
from closeup_ns.rounds.passes import planned_views, round_passes
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.rounds.store.layout import RoundPass
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.store.view import PassRecord, StoredView
from closeup_ns.views.reliability import Observation, ReliablePixels, reliable_pixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class Refinement:
    """A round that is refined: the model, where views come from and go to, and what may be looked at."""

    run: Run
    """Renders the views; its settings have the seed."""
    refiner: Refiner
    number: int
    """The round, from 1."""
    store: RoundStore
    """Where the refined views belong."""
    earlier: RoundStore
    """Where earlier rounds' views are."""
    photographs: Mapping[str, Observation]
    """`known.observations`."""
    consistent: Sequence[Observation]
    """`known.consistent_views`; for generators."""


def refines(settings: RoundSettings, device: torch.device | str) -> bool:
    """Whether rounds plan views of their own: for a refiner, or for the reliable pixels' loss term."""
    return chosen_kind(settings.refiner, device) != "none" or settings.fine_tune.sparse_weight > 0


@torch.no_grad()
def refine_round(
    run: Run,
    refiner: Refiner,
    number: int,
    plans: Sequence[RoundPlan],
    store: RoundStore,
    earlier: RoundStore,
    limit: int | None = None,
) -> None:
    """Refine every view of ``plans`` that the store does not hold; a view once stored is never refined again.

    Args:
        number: the round, from 1.
        store: where the refined views belong.
        earlier: where earlier rounds' views are; the same store in a training.
        limit: refine only so many of the views, in the plans' order; None for all.

    Raises:
        RefinerError: the refiner cannot work at all. What was refined before is stored.
        PlanningError: a plan's anchor is not there any more.
    """
    named = [planned_views(plan, index) for index, plan in enumerate(plans)]
    chosen = [name for views in named for name in views][:limit]
    named = [{name: view for name, view in views.items() if name in chosen} for views in named]
    views = {name: view for some in named for name, view in some.items()}
    done = set(store.views(number))
    missing = views.keys() - done
    if not missing:
        return
    passes = round_passes(store, number, plans, named, refiner, run.render, run.device)
    consistent = list(consistent_views(run, earlier, number).values()) if refiner.generates else []
    anchors = [anchor.name for plan in plans for anchor in plan.anchors]
    known = observations(run, list(views.values()), torch.tensor(plans[0].target), anchors)
    refinement = Refinement(run, refiner, number, store, earlier, known, consistent)
    try:
        with bar("refining close-ups", len(missing)) as advance:
            for index, item in enumerate(passes, start=1):
                todo = {name: views[name] for name in item.targets if name not in done}
                if not todo:
                    continue
                began = time.perf_counter()
                _refine_pass(refinement, index, item, todo, advance)
                if refiner.frames > 1:
                    said = f"pass {index} of {len(passes)}, {len(todo)} of {item.frames} pictures refined"
                    CONSOLE.print(f"Round {number}: {said} in {duration(time.perf_counter() - began)}", highlight=False)
    finally:
        refiner.close()  # what it loaded must not lie beside the fine-tuning
    _say_failures(store, number, list(views))


def _refine_pass(
    refinement: Refinement, index: int, item: RoundPass, todo: dict[str, View], advance: Callable[[], None]
) -> None:
    """Refine the missing views of one pass together, judge each and store it. Nothing of the pass is kept."""
    began = time.perf_counter()
    with measured(refinement.run.device) as peak:
        request, real = _request(refinement, item, todo)
        results = _refined(refinement.refiner, request)
    references = tuple(guide.name for guide in (*request.anchors, *request.neighbours))
    taken = time.perf_counter() - began
    for name, view, rendered, mask, refined in zip(todo, request.views, request.renders, real, results, strict=True):
        began = time.perf_counter()
        generated = refinement.refiner.generates if refined.generated is None else refined.generated
        refined, lost = keep_detail(refined, rendered, mask) if generated else (refined, 0.0)
        decision = judge(refined, rendered, mask, generated, lost)
        refined = _presentable(refined, rendered, mask)
        stored = StoredView(
            view=view,
            image=refined.image,
            render=rendered.color,
            reliable=mask,
            real=refined.real,
            weight=refined.weight,
            decision=decision,
            seconds=taken / len(todo) + time.perf_counter() - began,
            notes=refined.notes,
            record=PassRecord(
                refiner=refinement.refiner.name,
                generates=generated,
                pass_number=index,
                frames=len(todo) + len(references),
                references=references,
                peak_memory_mb=peak.megabytes,
                memory_of=peak.of,
            ),
        )
        refinement.store.save_view(refinement.number, name, stored)
        advance()


def _request(
    refinement: Refinement, item: RoundPass, todo: dict[str, View]
) -> tuple[RefineRequest, list[ReliablePixels]]:
    """What the refiner is given, and what is known of each view from photographs alone."""
    run, device = refinement.run, refinement.run.device
    views = [view.to(device) for view in todo.values()]
    renders = [run.render(view) for view in views]
    real = [
        reliable_pixels(view, rendered.depth, rendered.alpha, list(refinement.photographs.values()))
        for view, rendered in zip(views, renders, strict=True)
    ]
    stored = set(refinement.store.views(refinement.number))
    finished = [name for name in (*item.neighbours, *item.targets) if name in stored]
    request = RefineRequest(
        views=views,
        renders=renders,
        masks=[_shown(refinement, *parts) for parts in zip(views, renders, real, strict=True)],
        references=list(refinement.photographs.values()),
        seed=run.settings.seed,
        names=list(todo),
        anchors=[anchor_image(name, refinement.photographs, refinement.earlier, device) for name in item.anchors],
        neighbours=[
            stored_guide(refinement.store, refinement.number, name, name, device)
            for name in finished
            if refinement.store.header(refinement.number, name).decision.verdict == "accepted"
        ],
    )
    return request, real


def _shown(refinement: Refinement, view: View, rendered: Rendered, real: ReliablePixels) -> ReliablePixels:
    """The mask that a generator is given: also known is what consistent generated views agree on (papers.md 6.3 #17).

    Only the dense mask grows. The sparse pixels, their colours and their support stay those of photographs.
    """
    if not refinement.consistent:
        return real
    consistent = reliable_pixels(view, rendered.depth, rendered.alpha, refinement.consistent)
    return dataclasses.replace(real, dense=real.dense | consistent.dense)


def _refined(refiner: Refiner, request: RefineRequest) -> list[RefinedView]:
    """What the refiner makes of the pass; failures where it did not fit into memory."""
    try:
        return refiner.refine(request)
    except RefinerOutOfMemory as error:
        return [failed(rendered, str(error)) for rendered in request.renders]


def _presentable(refined: RefinedView, rendered: Rendered, mask: ReliablePixels) -> RefinedView:
    """What is stored: the render with no weight where there is no usable image, and real only what photographs see."""
    if refined.failure or not refined_is_finite(refined):
        nothing = failed(rendered, refined.failure or "NaN or infinite pixels")
        return dataclasses.replace(nothing, notes=refined.notes)
    return dataclasses.replace(refined, real=refined.real & mask.dense)


def _say_failures(store: RoundStore, number: int, names: list[str]) -> None:
    """One line where the gate could not accept views, with the first reason: a round that taught little says why."""
    decisions = [store.header(number, name).decision for name in names]
    refused = [decision.reason for decision in decisions if decision.verdict != "accepted"]
    if refused:
        CONSOLE.print(
            f"[yellow]Round {number}: {len(refused)} of {len(names)} refined views are not used as refined "
            f"(the first: {escape(refused[0])})"
        )
