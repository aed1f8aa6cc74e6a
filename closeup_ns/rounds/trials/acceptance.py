"""Whether a round's refined views are kept: a trial against the same number of steps without them.

Native views are photographs. Both arms train on them and they are never on trial: photographs that the base phase
trained on are remembered, so that in a short trial steps on anything else score worse on them, and their crops too
(fern: -0.07 dB at 3x after 150 steps, where 750 gain 1.5 dB on photographs that were never trained on).

The evidence is what neither arm trains on: photographs held out for the trial's duration, the closest to the target
and some far ones, their native crops at the round's own scale, and a quarter of the reliable pixels. The trial decides
and is then undone: a round whose views are kept trains in full from where it started, and otherwise its steps go to
the photographs and their native views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.layout import RoundVerdict
from closeup_ns.rounds.trials.trial import native_psnr, photograph_psnr, restore_snapshot, run_steps, take_snapshot
from closeup_ns.rounds.views import InjectedView
from closeup_ns.views.psnr import mean_of_numbers, psnr
from closeup_ns.views.view import View

TRIAL_SHARE = 0.2
"""Length of each of the two arms, as a share of the round's steps."""
HELD_OUT_SHARE = 0.125
"""Share of the photographs that is held out to score the arms: half of them the closest to the target, half spread
out."""
MIN_GAIN = 0.05
"""A round must be better than its control by this many dB on the held-out photographs' native crops, or, without any,
on the photographs. Less is noise: a round kept for 0.022 dB lost 0.19 dB on flower's test photographs."""
GENERATED_TOLERANCE = 2.0
"""A refiner that invents detail may cost this many dB on them in the short trial: far photographs cannot show its
detail. A plausible generator lost 0.8 to 1.2 dB in the first round's trial of 50 steps; 0.4 were left at the end of
a run that gained 2 dB at 27x (docs/quality.md)."""
NATIVE_TOLERANCE = 1.0
"""A refiner that invents detail may cost this many dB on held-out photographs' native crops, which show its scale.
Even the truth lost 0.67 in the demo's first trial, and a plausible generator 0.84. The gate leaves out before what
contradicts the originals, as all 26 views with detail from elsewhere."""
MAX_RELIABLE_LOSS = 0.1
"""A round may lose this many dB on the reliable pixels that were set aside."""
GENERATED_RELIABLE_LOSS = 3.0
"""The same for a refiner that invents detail, as the gate's ``MAX_PSNR_DROP``: even the truth lost 1.2 dB."""
SET_ASIDE_BLOCK = 8
"""Reliable pixels are set aside in blocks of this many pixels: neighbours would give the answer away."""


def evidence_photographs(views: Sequence[View], target: Tensor) -> list[int]:
    """Indices of the held-out photographs: the closest to ``target`` and, of the rest, an even spread."""
    count = min(max(round(HELD_OUT_SHARE * len(views)), 2), len(views) // 2)
    if count < 1:
        return []
    distances = torch.stack([(view.position - target.to(view.position)).norm() for view in views])
    order = distances.argsort(stable=True).tolist()
    closest, rest = order[: (count + 1) // 2], sorted(order[(count + 1) // 2 :])
    spread = [rest[(2 * i + 1) * len(rest) // (2 * (count // 2))] for i in range(count // 2)] if count // 2 else []
    return sorted({*closest, *spread})


def pixels_set_aside(height: int, width: int, seed: int) -> Bool[Tensor, "H W"]:
    """A quarter of the blocks of an image, drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = -(-height // SET_ASIDE_BLOCK), -(-width // SET_ASIDE_BLOCK)
    blocks = torch.rand(rows, columns, generator=generator) < 0.25
    mask = blocks.repeat_interleave(SET_ASIDE_BLOCK, 0).repeat_interleave(SET_ASIDE_BLOCK, 1)
    return mask[:height, :width]


@dataclass(frozen=True)
class Candidate:
    """A round on trial."""

    number: int
    views: Sequence[InjectedView]
    target: Tensor
    generates: bool
    step: int
    """The first that would train on its views."""
    steps: int
    """How many the round has."""


def try_round(run: Run, candidate: Candidate) -> RoundVerdict:
    """Judge a round's refined views. The model is left as it was."""
    if not candidate.views and run.native_views(candidate.number):
        return RoundVerdict(True, "its native views are photographs, and it has no others", known_share=1.0)
    if not candidate.views:
        return RoundVerdict(False, "no original shows the target at its scale, and the gate let no view through")
    known = mean_of_numbers(float(view.target.weight.mean()) for view in candidate.views)
    verdict = RoundVerdict(
        True,
        "not judged: acceptance is off or no photograph can be spared",
        known_share=known,
        views=len(candidate.views),
    )
    held_out = evidence_photographs(run.photographs.train_views(), candidate.target)
    if not run.settings.acceptance.enabled or not held_out:
        return verdict
    verdict.photographs_before = _finite(photograph_psnr(run, held_out))
    verdict.trial_steps = max(int(TRIAL_SHARE * candidate.steps), 1)
    control = _train_arm(run, candidate, "control", (), held_out, verdict.trial_steps)
    outcome = _train_arm(run, candidate, "round", candidate.views, held_out, verdict.trial_steps)
    return decide(replace(verdict, **control, **outcome), candidate.generates)


def _train_arm(
    run: Run, candidate: Candidate, arm: str, views: Sequence[InjectedView], held_out: Sequence[int], steps: int
) -> dict[str, float | None]:
    """Train with ``views`` beside native views and what earlier rounds brought, score, and go back.

    Returns:
        The verdict's figures of this arm, by their names.
    """
    data, snapshot, injected = run.photographs, take_snapshot(run), run.photographs.injected
    withheld_masks = [
        pixels_set_aside(view.view.height, view.view.width, seed).to(view.target.sparse.device)
        for seed, view in enumerate(candidate.views)
    ]
    data.hold_out(held_out)
    data.injected = injected + [_without(view, withheld) for view, withheld in zip(views, withheld_masks)]
    run_steps(run, candidate.step, steps, f"judging round {candidate.number}: {arm}")
    scores = {
        "photographs": photograph_psnr(run, held_out),
        "native": native_psnr(run, candidate.number, held_out),
        "reliable": _reliable_psnr(run, candidate.views, withheld_masks),
    }
    data.hold_out([])
    data.injected = injected
    restore_snapshot(run, snapshot)
    return {f"{name}_{arm}": _finite(score) for name, score in scores.items()}


def decide(verdict: RoundVerdict, generates: bool) -> RoundVerdict:
    """The rule, on the figures of a finished trial."""
    if verdict.photographs_round is None or verdict.photographs_control is None:
        return replace(verdict, accepted=False, reason="the held-out photographs show nothing that counts")
    gain = verdict.photographs_round - verdict.photographs_control
    said = f"held-out photographs {gain:+.3f} dB against as many steps on photographs alone"
    far = MIN_GAIN
    if verdict.native_round is not None and verdict.native_control is not None:
        far = 0.0  # a gain is asked for where it can be seen
        native = verdict.native_round - verdict.native_control
        said += f", their native crops {native:+.3f} dB"
        needed = -NATIVE_TOLERANCE if generates else MIN_GAIN
        if not native >= needed:
            return replace(verdict, accepted=False, reason=f"{said}: {needed:+.2f} dB are needed on the crops")
    needed = -GENERATED_TOLERANCE if generates else far
    if not gain >= needed:
        return replace(verdict, accepted=False, reason=f"{said}: {needed:+.2f} dB are needed")
    if verdict.reliable_round is not None and verdict.reliable_control is not None:
        change = verdict.reliable_round - verdict.reliable_control
        said += f", reliable pixels set aside {change:+.3f} dB"
        limit = GENERATED_RELIABLE_LOSS if generates else MAX_RELIABLE_LOSS
        if change < -limit:
            return replace(verdict, accepted=False, reason=f"{said}: at most {limit:.2f} dB may be lost")
    return replace(verdict, accepted=True, reason=said)


def _without(view: InjectedView, withheld: Bool[Tensor, "H W"]) -> InjectedView:
    target = view.target
    kept = replace(target, weight=torch.where(withheld, 0.0, target.weight), sparse=target.sparse & ~withheld)
    return replace(view, target=kept)


def _reliable_psnr(run: Run, views: Sequence[InjectedView], withheld_masks: Sequence[Tensor]) -> float:
    scores = []
    for view, withheld in zip(views, withheld_masks):
        mask = view.target.sparse & withheld
        if mask.any():
            seen = as_photographed(run.model.render_view(view.view).color.permute(2, 0, 1), view.target.footprint)
            scores.append(psnr(seen.permute(1, 2, 0), view.target.sparse_color, mask))
    return mean_of_numbers(scores)


def _finite(value: float) -> float | None:
    return value if value == value else None
