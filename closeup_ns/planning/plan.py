"""Planning one round: anchors, frontier and to-be-updated views (paper, section 4.3, Fig. 2 a and b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.planning.candidates import Candidates, find_candidates
from closeup_ns.planning.frontier import (
    SEED_SEPARATION,
    Frontier,
    directions_from,
    frontier_of,
    place_frontier,
    seed_views,
)
from closeup_ns.planning.selection import eligible_views, select_views
from closeup_ns.planning.survey import point_visibility, survey
from closeup_ns.planning.target import Target
from closeup_ns.reading import build
from closeup_ns.views.overlap import DepthViews, coverage, distance_discount, shared_fraction, similarity
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View

SAME_PLACE = 0.01
"""Views are taken from one place if they are at most this share of the target's distance apart: registered native views
move a little."""


@dataclass
class PlannerConfig:
    """How many views a round has (paper, section 4.3; numbers from section 5.2)."""

    anchors: int = 5
    """k: known views that summarise what is known, and number of frontier views."""
    updates: int = 8
    """U: to-be-updated views between the anchors and the frontier."""
    candidates: int = 100
    """M: random views from which the to-be-updated ones are chosen."""

    def __post_init__(self) -> None:
        if min(self.anchors, self.updates, self.candidates) < 1:
            raise PlanningError("anchors, updates and candidates must be at least 1")


@dataclass(frozen=True, eq=False)
class KnownView:
    """A view whose image is known: a photograph, or a generated view that an earlier round accepted."""

    name: str
    """Unique name, by which a later round finds it again."""
    view: View
    """Camera at the image's size."""
    is_real: bool
    """True for a photograph."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        return vars(self) | {"view": self.view.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> KnownView:
        """What `to_dict` wrote, on the CPU. CloseupError where it is not that."""
        return build(cls, {**content, "view": View.from_dict(content.get("view", {}))})


@dataclass(frozen=True, eq=False)
class RoundPlan:
    """The views of one round. Distances are in world units."""

    round_index: int
    """1 for the first round."""
    zoom_total: float
    """How many times closer than the photographs the frontier is."""
    radius: float
    """r_t: the frontier's distance to the target."""
    previous_radius: float
    """r_{t-1}: the outer end of the to-be-updated views' shell."""
    target: list[float]
    """The target's world coordinates."""
    anchors: list[KnownView]
    """Known views that summarise what is known: the references of the refiner."""
    anchor_coverage: list[float]
    """How much of the frontier each anchor sees, 0 to 1."""
    frontier: list[View]
    """The closest views of the round."""
    frontier_seeds: list[str]
    """Name of the known view that gave each frontier view its direction."""
    updates: list[View]
    """To-be-updated views, between the anchors and the frontier."""
    update_weights: list[float]
    """Discounted overlap with anchors and frontier, as a share of the best candidate's."""
    candidates: list[View]
    """All usable candidates, the chosen ones among them; for figures and diagnosis."""
    warnings: list[str] = field(default_factory=list)
    """What did not go as configured, and the target's own warnings."""

    def named(self, target: int, kind: Literal["update", "frontier"]) -> dict[str, View]:
        """Views of one ``kind`` that are refined, by the names they are stored under; ``target`` counts from 0."""
        views = self.updates if kind == "update" else self.frontier
        return {f"t{target}_{kind}_{number:02d}": view for number, view in enumerate(views)}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able content; `from_dict` restores every float exactly."""
        content = dict(vars(self))
        for name in ("anchors", "frontier", "updates", "candidates"):
            content[name] = [view.to_dict() for view in content[name]]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> RoundPlan:
        """A plan on the CPU from what `to_dict` wrote.

        Raises:
            CloseupError: it is not that, or holds what is no camera.
        """
        restored = dict(content)
        restored["anchors"] = [KnownView.from_dict(anchor) for anchor in content.get("anchors", [])]
        for name in ("frontier", "updates", "candidates"):
            restored[name] = [View.from_dict(view) for view in content.get(name, [])]
        return build(cls, restored)


@torch.no_grad()
def plan_round(
    round_index: int,
    zoom: float,
    target: Target,
    known: Sequence[KnownView],
    render: Renderer,
    config: PlannerConfig,
    generator: torch.Generator,
    previous_anchors: Sequence[str] | None = None,
    given_frontier: Sequence[View] | None = None,
) -> RoundPlan:
    """Choose the views of round ``round_index`` (1-based), which works at d0 / ``zoom`` ^ round from the target.

    The frontier's directions come from the previous round's anchors or, in the first round, from known views spread
    around the target; the anchors are then those known views that cover the frontier best (Eq. 5).

    Args:
        zoom: how much closer each round goes.
        target: where to go; its ``distance`` is d0.
        known: photographs and accepted generated views; sizes and intrinsics may differ.
        render: the current model.
        generator: randomness of the candidates.
        previous_anchors: names of the previous round's anchors that are still known, in `RoundPlan.anchors`' order.
        given_frontier: where to go, in place of a frontier of its own (the paper's test poses on LERF).

    Raises:
        PlanningError: nothing can be planned; the message says what to change.
    """
    radius, previous_radius = (target.distance / zoom**power for power in (round_index, round_index - 1))
    views, names = [item.view for item in known], [item.name for item in known]
    whole, warnings = _with_widest_intrinsics(views, target), list(target.warnings)
    known_depths = survey(views, render)
    if given_frontier:
        frontier = frontier_of(given_frontier, views, target, render)
        radius = float(torch.stack([(view.position - target.point).norm() for view in frontier.views]).median())
    else:
        seeds = _seeds(known, known_depths, target, config.anchors, previous_anchors or (), warnings)
        frontier = place_frontier(whole, names, seeds, target, radius, render)
    resolved = _resolved(views, frontier, target)
    anchors, anchor_coverage = _choose_anchors(known_depths, resolved, frontier, config.anchors, warnings)
    sources = [*(whole[index] for index in anchors.tolist()), *frontier.views]
    shell = (radius, previous_radius)
    candidates = find_candidates(sources, target, shell, render, config.candidates, config.updates, generator)
    updates, weights = _choose_updates(known_depths[anchors], frontier, candidates, shell, config.updates)
    return RoundPlan(
        round_index=round_index, zoom_total=zoom**round_index, radius=radius, previous_radius=previous_radius,
        target=target.point.tolist(),
        anchors=[known[index] for index in anchors.tolist()], anchor_coverage=anchor_coverage.tolist(),
        frontier=frontier.views, frontier_seeds=[names[index] for index in frontier.seeds],
        updates=[candidates.views[index] for index in updates.tolist()], update_weights=weights.tolist(),
        candidates=candidates.views, warnings=warnings + frontier.warnings + candidates.warnings,
    )  # fmt: skip


def _seeds(
    known: Sequence[KnownView],
    depths: DepthViews,
    target: Target,
    count: int,
    previous_anchors: Sequence[str],
    warnings: list[str],
) -> list[int]:
    """Indices of the known views that give the frontier its directions; adds to ``warnings`` where they are few."""
    usable = point_visibility(depths, target.point).sees()
    if not bool(usable.any()):
        raise PlanningError(
            f"no known view sees the target {[round(x, 4) for x in target.point.tolist()]}: it is outside every image "
            "or hidden; choose a point on a surface that the photographs show"
        )
    names = [item.name for item in known]
    directions = directions_from(target.point, [item.view for item in known])
    seeds = seed_views(directions, usable, count, [names.index(name) for name in previous_anchors])
    if len(seeds) < count:
        warnings.append(
            f"{len(seeds)} frontier views instead of {count}: only so many of the {len(known)} known views "
            f"see the target from directions at least {SEED_SEPARATION:g} degrees apart"
        )
    return seeds


def _with_widest_intrinsics(views: Sequence[View], target: Target) -> list[View]:
    """Each view with the intrinsics of the widest view that was taken from its place.

    A native view is a part of its photograph, narrower and off its centre. Moved nearer by a round's zoom it would go
    by the square of that zoom, past the target.
    """
    positions = torch.stack([view.position for view in views])
    fields = torch.stack([view.width / view.K[0, 0] for view in views])
    together = torch.cdist(positions, positions) <= SAME_PLACE * target.distance
    widest = torch.where(together, fields, 0.0).argmax(1).tolist()
    return [
        View(views[wide].K, view.c2w, views[wide].width, views[wide].height)
        for view, wide in zip(views, widest, strict=True)
    ]


def _resolved(known: Sequence[View], frontier: Frontier, target: Target) -> Float[Tensor, "n"]:
    """The resolution of each known view at the target, of the finest one's, and what exceeds the frontier's is no gain.

    A native view has three or nine times the pixels of its photograph there. Relative to the finest, so that Eq. 5
    balances coverage and redundancy as it does where all views are alike.
    """

    def density(view: View) -> Tensor:
        return view.K[0, 0] / (view.position - target.point.to(view.position)).norm().clamp_min(1e-12)

    found = torch.stack([density(view) for view in known])
    found = found.minimum(torch.stack([density(view) for view in frontier.views]).median().to(found))
    return found / found.max()


def _choose_anchors(
    known: DepthViews,
    resolved: Float[Tensor, "n"],
    frontier: Frontier,
    count: int,
    warnings: list[str],
) -> tuple[Tensor, Float[Tensor, "k"]]:
    """The ``count`` known views that cover the frontier best with little redundancy (Eq. 5), and their coverage."""
    weights = coverage(frontier.depths, known)
    weights = weights * resolved.to(weights)
    if not bool((weights > 0).any()):
        raise PlanningError(
            "no known view sees any surface that the frontier views show: the model's geometry around the target "
            "disagrees between near and far; train longer, or choose another target"
        )
    # Overlap is only measured among views that can be chosen: its cost grows with their number squared.
    eligible = eligible_views(weights, count)
    eligible = eligible[weights[eligible] > 0]
    if eligible.numel() < count:
        warnings.append(f"{eligible.numel()} anchors instead of {count}: no other known view sees the frontier")
    chosen = select_views(weights[eligible], similarity(known[eligible]), count)
    return eligible[chosen], weights[eligible[chosen]]


def _choose_updates(
    anchors: DepthViews,
    frontier: Frontier,
    candidates: Candidates,
    shell: tuple[float, float],
    count: int,
) -> tuple[Tensor, Float[Tensor, "u"]]:
    """The ``count`` candidates that best bridge anchors and frontier (section 4.3.2), and their weights.

    Overlap is counted on the farther view of each pair, the only reading under which Appendix C's growth with the
    distance happens: anchors' pixels seen by the candidate, candidate's pixels seen by the frontier. The discount's
    scale is arbitrary, so the weights are taken relative to the best, which puts them on the scale of the overlap.
    """
    from_anchors = shared_fraction(anchors, candidates.depths).mean(0)
    to_frontier = shared_fraction(candidates.depths, frontier.depths).mean(1)
    discount = distance_discount(candidates.distances, *shell)
    weights = discount * (from_anchors + to_frontier)
    weights = weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)
    eligible = eligible_views(weights, count)
    chosen = eligible[select_views(weights[eligible], similarity(candidates.depths[eligible]), count)]
    return chosen, weights[chosen]
