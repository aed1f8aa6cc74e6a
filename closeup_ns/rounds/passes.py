"""Which views of a round are refined together, with which references (papers.md 6.3 #5; See3D's joint passes).

Planned over all of a round's views and written down, so that a run that is resumed makes the same passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from closeup_ns.planning.plan import RoundPlan
from closeup_ns.planning.survey import survey
from closeup_ns.refine.chunking import plan_passes
from closeup_ns.refine.protocol import Refiner
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


@dataclass(frozen=True)
class RoundPass:
    """One call of a refiner, by names. Anchors, neighbours and targets together are at most the refiner's frames."""

    targets: tuple[str, ...]
    """Views of the round to refine."""
    neighbours: tuple[str, ...] = ()
    """Views of the round that earlier passes refined: further references."""
    anchors: tuple[str, ...] = ()
    """Known views, as the plan calls them."""

    @property
    def frames(self) -> int:
        """Pictures in the pass."""
        return len(self.targets) + len(self.neighbours) + len(self.anchors)


def planned_views(plan: RoundPlan, index: int) -> dict[str, View]:
    """Names and views of what a plan refines, the frontier too (Fig. 2c); the name starts with the target's index."""
    updates = {f"t{index}_update_{number:02d}": view for number, view in enumerate(plan.updates)}
    return updates | {f"t{index}_frontier_{number:02d}": view for number, view in enumerate(plan.frontier)}


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
    saved = store.load_passes(number) or {"frames": 0, "passes": []}
    passes = [RoundPass(**{kind: tuple(names) for kind, names in item.items()}) for item in saved["passes"]]
    wanted = sorted(name for named in views for name in named)
    if saved["frames"] == refiner.frames and sorted(name for item in passes for name in item.targets) == wanted:
        return passes
    passes = []
    for plan, named in zip(plans, views, strict=True):
        passes += _plan_passes(plan, named, refiner.frames, render, device)
    store.save_passes(number, {"frames": refiner.frames, "passes": [asdict(item) for item in passes]})
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
