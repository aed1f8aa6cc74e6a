"""Whether a round is kept: a trial against the same number of steps on real photographs alone.

The evidence is what neither arm of the trial trains on: photographs held out for its duration, the closest to the
target and some far ones, and a quarter of the reliable pixels. The trial decides and is then undone: an accepted
round trains in full from where it started, and a rejected one leaves the model as it was, so that its steps go to
the real photographs and the run is never worse off than the base trained for as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from closeup_ns.refine.footprint import as_photographed
from closeup_ns.rounds.trial import photograph_psnr, psnr, restore_snapshot, run_steps, take_snapshot
from closeup_ns.studio.datamanager import InjectedView
from closeup_ns.views.view import View

if TYPE_CHECKING:
    from closeup_ns.studio.pipeline import CloseupPipeline

SET_ASIDE_BLOCK = 8
"""Reliable pixels are set aside in blocks of this many pixels: neighbours would give the answer away."""


@dataclass
class AcceptanceConfig:
    """When a round is kept."""

    enabled: bool = True
    """Judge rounds by a trial; off keeps every round."""
    trial_share: float = 0.2
    """Length of each of the two arms, as a share of the round's steps."""
    photographs: float = 0.125
    """Share of the photographs that is held out to judge: half of them the closest to the target, half spread out."""
    min_gain: float = 0.05
    """A round must be better than its control by this many dB on the held-out photographs. Less is noise: a round kept
    for 0.022 dB lost 0.19 dB on flower's test photographs."""
    generated_tolerance: float = 2.0
    """A refiner that invents detail may cost this many dB on them in the short trial: far photographs cannot show its
    detail. A plausible generator lost 0.8 to 1.2 dB in the first round's trial of 50 steps; 0.4 were left at the end of
    a run that gained 2 dB at 27x (docs/quality.md)."""
    max_reliable_loss: float = 0.1
    """A round may lose this many dB on the reliable pixels that were set aside."""
    generated_reliable_loss: float = 3.0
    """The same for a refiner that invents detail, as the gate's ``max_psnr_drop``: even the truth lost 1.2 dB."""


@dataclass
class RoundVerdict:
    """The outcome of a trial, as the report shows it."""

    accepted: bool
    reason: str
    photographs_before: float | None = None
    """PSNR in dB of the held-out photographs before the trial."""
    photographs_control: float | None = None
    """After the control arm: real photographs only."""
    photographs_round: float | None = None
    """After the round's arm."""
    reliable_control: float | None = None
    """PSNR in dB of the reliable pixels set aside, after the control arm."""
    reliable_round: float | None = None
    known_share: float = 0.0
    """How much the round has to say: mean trust of its pixels."""
    trial_steps: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evidence_photographs(views: Sequence[View], target: Tensor, share: float) -> list[int]:
    """Indices of the judges: the closest to ``target`` and, of the rest, an even spread. Deterministic."""
    count = min(max(round(share * len(views)), 2), len(views) // 2)
    if count < 1:
        return []
    distances = torch.stack([(view.position - target.to(view.position)).norm() for view in views])
    order = distances.argsort(stable=True).tolist()
    closest, rest = order[: (count + 1) // 2], sorted(order[(count + 1) // 2 :])
    spread = [rest[(2 * i + 1) * len(rest) // (2 * (count // 2))] for i in range(count // 2)] if count // 2 else []
    return sorted({*closest, *spread})


def set_aside_mask(height: int, width: int, seed: int) -> Bool[Tensor, "H W"]:
    """A quarter of the blocks of an image, drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = -(-height // SET_ASIDE_BLOCK), -(-width // SET_ASIDE_BLOCK)
    blocks = torch.rand(rows, columns, generator=generator) < 0.25
    mask = blocks.repeat_interleave(SET_ASIDE_BLOCK, 0).repeat_interleave(SET_ASIDE_BLOCK, 1)
    return mask[:height, :width]


def try_round(
    trainer: Trainer, step: int, round_steps: int, views: Sequence[InjectedView], target: Tensor, generates: bool
) -> RoundVerdict:
    """Judge a round whose views are ``views``. The model is left as it was."""
    pipeline: CloseupPipeline = trainer.pipeline  # type: ignore[assignment]
    config, data = pipeline.config.acceptance, pipeline.datamanager
    known = float(torch.stack([view.target.weight.mean() for view in views]).mean()) if views else 0.0
    if not views:
        return RoundVerdict(False, "the gate let no view through: nothing to train on")
    judges = evidence_photographs(data.train_views(), target, config.photographs)
    if not config.enabled or not judges:
        return RoundVerdict(True, "not judged: acceptance is off or no photograph can be spared", known_share=known)
    steps = max(int(config.trial_share * round_steps), 1)
    asides = [
        set_aside_mask(v.view.height, v.view.width, seed).to(v.target.sparse.device) for seed, v in enumerate(views)
    ]
    before = photograph_psnr(pipeline, judges)
    earlier = [view for view in data.injected if view not in views]
    held_back = [_without(view, aside) for view, aside in zip(views, asides)]
    snapshot = take_snapshot(trainer)
    arms: dict[str, tuple[float, float]] = {}
    for name, injected in (("control", earlier), ("round", [*earlier, *held_back])):
        data.hold_out(judges)
        data.injected = list(injected)
        run_steps(trainer, step, steps, f"judging the round: {name}")
        arms[name] = (photograph_psnr(pipeline, judges), _reliable_psnr(pipeline, views, asides))
        data.hold_out([])
        restore_snapshot(trainer, snapshot)
    data.injected = earlier
    verdict = RoundVerdict(
        accepted=False,
        reason="",
        photographs_before=before,
        photographs_control=arms["control"][0],
        photographs_round=arms["round"][0],
        reliable_control=_finite(arms["control"][1]),
        reliable_round=_finite(arms["round"][1]),
        known_share=known,
        trial_steps=steps,
    )
    return decide(verdict, config, generates)


def decide(verdict: RoundVerdict, config: AcceptanceConfig, generates: bool) -> RoundVerdict:
    """The rule, on the figures of a finished trial."""
    assert verdict.photographs_round is not None and verdict.photographs_control is not None
    gain = verdict.photographs_round - verdict.photographs_control
    needed = -config.generated_tolerance if generates else config.min_gain
    said = f"held-out photographs {gain:+.3f} dB against as many steps on real photographs alone"
    if not gain >= needed:  # NaN, too: judges of which nothing counts prove nothing
        return replace(verdict, accepted=False, reason=f"{said}: {needed:+.2f} dB are needed")
    if verdict.reliable_round is not None and verdict.reliable_control is not None:
        change = verdict.reliable_round - verdict.reliable_control
        said += f", reliable pixels set aside {change:+.3f} dB"
        limit = config.generated_reliable_loss if generates else config.max_reliable_loss
        if change < -limit:
            return replace(verdict, accepted=False, reason=f"{said}: at most {limit:.2f} dB may be lost")
    return replace(verdict, accepted=True, reason=said)


def _without(view: InjectedView, aside: Bool[Tensor, "H W"]) -> InjectedView:
    target = view.target
    kept = replace(target, weight=torch.where(aside, 0.0, target.weight), sparse=target.sparse & ~aside)
    return replace(view, target=kept)


def _reliable_psnr(pipeline: CloseupPipeline, views: Sequence[InjectedView], asides: Sequence[Tensor]) -> float:
    scores = []
    for view, aside in zip(views, asides):
        mask = view.target.sparse & aside
        if mask.any():
            seen = as_photographed(pipeline.model.render_view(view.view).color.permute(2, 0, 1), view.target.footprint)
            scores.append(psnr(seen.permute(1, 2, 0), view.target.sparse_color, mask))
    return sum(scores) / len(scores) if scores else float("nan")


def _finite(value: float) -> float | None:
    return value if value == value else None
