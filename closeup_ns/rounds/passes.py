"""Which views of a round are refined together, with which references (papers.md 6.3 #5; See3D's joint passes).

Planned over all of a round's views and written down, so that a run that is resumed makes the same passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from closeup_ns.planning.plan import RoundPlan
from closeup_ns.planning.survey import survey
from closeup_ns.refine.chunking import plan_passes
from closeup_ns.refine.protocol import Refiner
from closeup_ns.rounds.store.layout import RoundPass, StoredPasses
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


def planned_views(plan: RoundPlan, index: int) -> dict[str, View]:
    """Names and views of what a plan refines, the frontier too (Fig. 2c); ``index`` is that of its target."""
    return plan.named(index, "update") | plan.named(index, "frontier")


def round_passes(
    store: RoundStore,
    number: int,
    plans: Sequence[RoundPlan],
    views: Sequence[Mapping[str, View]],
    refiner: Refiner,
    render: Renderer,
    device: torch.device | str,
) -> list[RoundPass]:
    """The passes of round ``number``; from ``store`` where it has them for these views and this many frames.

    Args:
        plans: one for each target of the run.
        views: what each of them refines, as `planned_views` names it.
        refiner: says how many frames go together.
        render: the model, for depths.
    """
    if refiner.frames <= 1:
        # Each view stands alone; a generator sees all anchors and takes what it can use.
        return [
            RoundPass((name,), (), tuple(anchor.name for anchor in plan.anchors) if refiner.generates else ())
            for plan, named in zip(plans, views, strict=True)
            for name in named
        ]
    saved = store.load_passes(number)
    wanted = sorted(name for named in views for name in named)
    planned = [] if saved is None else sorted(name for item in saved.passes for name in item.targets)
    if saved is not None and saved.frames == refiner.frames and planned == wanted:
        return saved.passes
    passes: list[RoundPass] = []
    for plan, named in zip(plans, views, strict=True):
        passes += _plan_passes(plan, named, refiner.frames, render, device)
    store.save_passes(number, StoredPasses(refiner.frames, passes))
    return passes


def _plan_passes(
    plan: RoundPlan, named: Mapping[str, View], frames: int, render: Renderer, device: torch.device | str
) -> list[RoundPass]:
    """One target's passes, by the pixels that its views and anchors share."""
    if not named:
        return []
    names, anchors = list(named), [anchor.name for anchor in plan.anchors]
    targets = survey([view.to(device) for view in named.values()], render)
    known = survey([anchor.view.to(device) for anchor in plan.anchors], render)
    return [
        RoundPass(
            tuple(names[index] for index in item.targets),
            tuple(names[index] for index in item.neighbours),
            tuple(anchors[index] for index in item.anchors),
        )
        for item in plan_passes(targets, known, frames)
    ]
