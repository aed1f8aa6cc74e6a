"""From refined views to training: what each pixel weighs, and what may densify (4.3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.model.losses import InjectedTarget, real_share
from closeup_ns.model.model import CloseupModel
from closeup_ns.model.strategy import NEVER, HalvingStrategy
from closeup_ns.planning.plan import RoundPlan
from closeup_ns.refine.judging.footprint import consistent
from closeup_ns.rounds.passes import planned_views
from closeup_ns.rounds.settings import FineTuneConfig
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.rounds.store.view import StoredView
from closeup_ns.rounds.views import InjectedView

REAL_WEIGHT = 1.0
"""Weight of pixels whose colour comes from photographs."""
SSIM_WEIGHT = 0.2
"""Weight of the structural term, where a generator added detail. Without one there is nothing to fit but noise."""
DENSIFY_WITHIN = 1 / 3
"""Only views at most this share of the original distance from the target densify."""


def injected_view(
    number: int,
    name: str,
    stored: StoredView,
    target: Tensor,
    base_distance: float,
    config: FineTuneConfig,
    device: torch.device | str,
) -> InjectedView:
    """A stored view as a training view. Of ``reliable_only`` views (gate) only the reliable pixels are trained on.

    Reliable pixels get their real colours, M real + (1 - M) refined (papers.md 6.3 #18), where "real" is an average
    over the photograph's pixel: the refined picture is moved until it has that average and keeps its own detail. What
    is between a photograph's samples weighs as generated: of ``footprint`` squared pixels one is real.
    """
    generates = stored.record.generates
    weight = torch.where(stored.real, REAL_WEIGHT, config.generated_weight if generates else REAL_WEIGHT)
    weight, image = weight * stored.weight, stored.image
    sparse = stored.reliable.sparse
    if config.sparse_weight > 0:
        image = with_real_colors(stored)
    if generates and config.sparse_weight > 0:
        share = torch.where(sparse, real_share(stored.reliable.footprint), 0.0)
        weight = torch.lerp(weight, torch.full_like(weight, REAL_WEIGHT), share)
    if not stored.decision.accepted:
        weight = torch.zeros_like(weight)
    distance = float((stored.view.position - target.to(stored.view.position)).norm())
    return InjectedView(
        name=f"round{number}/{name}",
        round_index=number,
        view=stored.view.to(device),
        target=InjectedTarget(
            image=image.to(device),
            weight=weight.to(device),
            sparse=sparse.to(device),
            sparse_color=stored.reliable.color.permute(1, 2, 0).contiguous().to(device),
            footprint=stored.reliable.footprint.to(device),
            sparse_weight=config.sparse_weight,
            ssim_weight=SSIM_WEIGHT if generates else 0.0,
        ),
        densifies=(
            config.densify
            and generates
            and stored.decision.accepted
            and distance <= DENSIFY_WITHIN * base_distance * 1.05
        ),
    )


def stored_views(
    store: RoundStore,
    number: int,
    plans: Sequence[RoundPlan],
    config: FineTuneConfig,
    device: torch.device | str,
) -> list[InjectedView]:
    """The views of round ``number`` that are trained on."""
    plan_of = {name: plan for index, plan in enumerate(plans) for name in planned_views(plan, index)}
    views = []
    for name in store.views(number):
        stored = store.load_view(number, name)
        if trained_on(stored, config):
            plan = plan_of[name]
            target, distance = torch.tensor(plan.target), plan.radius * plan.zoom_total
            views.append(injected_view(number, name, stored, target, distance, config, device))
    return views


def trained_on(stored: StoredView, config: FineTuneConfig) -> bool:
    """Whether a stored view is trained on: as it was refined, or its reliable pixels where those have a weight."""
    return stored.decision.accepted or (stored.decision.verdict == "reliable_only" and config.sparse_weight > 0)


def with_real_colors(stored: StoredView) -> Float[Tensor, "H W 3"]:
    """The view as it was refined, or its render where the gate refused that, with the photographs' colours at the
    photographs' scale.
    """
    base = stored.image if stored.decision.accepted else stored.render
    known = stored.reliable
    return consistent(base.permute(2, 0, 1), known.color, known.sparse, known.footprint).permute(1, 2, 0).contiguous()


def fine_tuning_strategy(
    model: CloseupModel,
    config: FineTuneConfig,
    start: int,
    steps: int,
    densifies: bool,
    max_gaussians: int,
) -> HalvingStrategy:
    """A fresh strategy for one round: no opacity reset, and growth that hardly changes what is seen.

    Args:
        densifies: whether the round has native views, or a generator's, to grow Gaussians for.
        max_gaussians: most that growth may reach, whatever the base phase's ceiling was.

    gsplat's own would return early (its last step is past) or reset all opacities in the middle of a short fine-tuning.
    """
    settings = dict(vars(model.base_strategy()))
    settings.update(
        refine_start_iter=start,
        refine_stop_iter=start + int(0.8 * steps) if config.densify and densifies else 0,
        reset_every=NEVER,
        pause_refine_after_reset=0,
        refine_scale2d_stop_iter=0,
        prune_scale3d=NEVER,
        prune_opa=0.005,
        max_gaussians=max_gaussians,
        counts_this_step=False,
    )
    return HalvingStrategy(**settings)
