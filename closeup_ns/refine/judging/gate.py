"""Whether a refined view is trained on, decided before the model sees it (papers.md 6.3 #25).

A refined view may add detail, but must not contradict what real photographs say. What fails falls back to the reliable
pixels alone, and what has no evidence at all is dropped. The decision is written beside the view.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.reading import build
from closeup_ns.refine.judging.detail import fitted_error, lost_detail
from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.refine.protocol import RefinedView
from closeup_ns.views.psnr import decibels
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.rendered import Rendered

Verdict = Literal["accepted", "reliable_only", "rejected"]

MAX_PSNR_DROP, COARSE_PSNR_DROP = 2.2, 3.0
"""How much worse than the render, in dB, the refined view may match the sparse reliable pixels (`fitted_psnr`): where a
photograph's pixel covers at most `COARSE` of the view's in each direction, and where it covers more.

Detail that has nothing to do with the truth's doubles the error of a render without any: 3 dB. On the demo, whose
rounds had originals, detail from elsewhere lost 2.7 to 4.8 dB at 3x and 9x, a plausible generator at most 1.4, the
truth 1.7: the render was fitted to these photographs through the very geometry that carries them here. At 27x, where
nothing resolves the view, the truth lost up to 2.7, no less with moves of a photograph's pixel (docs/quality.md)."""
COARSE = 3.0
MAX_LOW_FREQUENCY_DIFFERENCE = 0.1
"""Largest root-mean-square difference (0 to 1, worst channel) between refined view and render, both averaged over
blocks, on the known mask: detail may change, colours may not."""
BLOCK = 16
"""Side of those blocks, pixels; two pixels of a photograph where those are larger, because within one of them nobody
knows where the colours are."""
MIN_KNOWN_SHARE = 0.05
"""A view with a smaller share of known (dense) pixels is dropped: nothing real could contradict what is in it."""
MIN_RELIABLE_PIXELS = 32
"""Fewer sparse reliable pixels than this give no PSNR to judge by; a generated view then falls back."""


@dataclass(frozen=True)
class GateDecision:
    """The verdict on one refined view, with the evidence. JSON-able through ``to_dict``."""

    verdict: Verdict
    """accepted: train on the refined view. reliable_only: on its sparse reliable pixels. rejected: not at all."""
    reason: str
    """One sentence for the report."""
    psnr_before: float | None
    """The render, seen as the photographs see it, against their colours on the sparse reliable pixels, dB, fitted block
    by block (`fitted_psnr`); None where they are too few."""
    psnr_after: float | None
    """The refined view against the same; None where they are too few, it is not finite, or there is none."""
    low_frequency_difference: float | None
    """RMS over blocks of the known mask; None where it cannot be computed."""
    known_share: float
    """Share of the view's pixels that are geometrically consistent with a known view (dense)."""
    reliable_share: float
    """Share of the view's pixels with an agreed real colour (sparse)."""
    lost_share: float = 0.0
    """Share of the view's pixels that are not trained on because they lost what an original resolves there."""

    @property
    def accepted(self) -> bool:
        """Whether the refined view itself is trained on."""
        return self.verdict == "accepted"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, ``accepted`` included for whoever reads the file."""
        return {"accepted": self.accepted, **dataclasses.asdict(self)}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> GateDecision:
        """The inverse of ``to_dict``. CloseupError where it is not that."""
        return build(GateDecision, {name: value for name, value in content.items() if name != "accepted"})


def fitted_psnr(image: Float[Tensor, "H W 3"], mask: ReliablePixels) -> float:
    """PSNR in dB between what photographs would see of ``image`` and what they do see, on the sparse reliable pixels.

    Each block is moved by up to two pixels and its colours are offset as fits best (`fitted_error`). The mask must have
    sparse pixels.

    Pixel by pixel a true close-up would lose to the blurred render that it replaces: far photographs hold none of its
    detail (the demo's truth, 3x closer: 22 dB where the render has 25). Native crops do, at the view's own scale; there
    a generator's view that is bent by 1.5 pixels loses 4 dB as it is, as one with detail from elsewhere does; fitted, 0
    and 4 dB (docs/quality.md).
    """
    seen = as_photographed(image.permute(2, 0, 1), mask.footprint.to(image))
    return decibels(fitted_error(seen, mask.color.to(image), mask.sparse))


def low_frequency_difference(
    image: Float[Tensor, "H W 3"], render: Float[Tensor, "H W 3"], mask: Bool[Tensor, "H W"], block: int
) -> float | None:
    """RMS over blocks of the worst channel's difference between masked block averages; None where no block is known.

    Each block counts by its share of known pixels. The root mean square, because a block of wrong colour must not drown
    in an otherwise good image.
    """
    inside = mask.to(image.dtype)[None, None]
    difference = (image - render).permute(2, 0, 1)[None] * inside
    share = F.avg_pool2d(inside, block, ceil_mode=True, count_include_pad=False)[0, 0]
    average = F.avg_pool2d(difference, block, ceil_mode=True, count_include_pad=False)[0]
    worst = (average.abs() / share.clamp_min(1e-6)).amax(0)
    if not bool((share > 0).any()):
        return None
    return float(((worst.square() * share).sum() / share.sum()).sqrt())


def judge(
    refined: RefinedView, render: Rendered, mask: ReliablePixels, generates: bool, lost_share: float = 0.0
) -> GateDecision:
    """Decides whether a refined view may be trained on. Never raises on bad pixels: they are what it is here to find.

    A view with a ``failure`` was not refined: what is known of it for certain is used, and the failure is the reason.

    Args:
        refined: the candidate.
        render: the model's view that it came from.
        mask: what real photographs say about the view.
        generates: whether the refiner invents detail, which then needs evidence to be believed.
        lost_share: what `keep_detail` took from the view.
    """
    known, reliable = float(mask.dense.float().mean()), float(mask.sparse.float().mean())
    enough = int(mask.sparse.sum()) >= MIN_RELIABLE_PIXELS
    before = after = difference = None
    footprint = _typical_footprint(mask)
    usable = not refined.failure and refined_is_finite(refined)
    if enough:
        before = fitted_psnr(torch.nan_to_num(render.color), mask)
    if usable:
        block = max(BLOCK, round(2 * footprint))
        difference = low_frequency_difference(refined.image, torch.nan_to_num(render.color), mask.dense, block)
        after = fitted_psnr(refined.image, mask) if enough else None

    def decision(verdict: Verdict, reason: str) -> GateDecision:
        return GateDecision(verdict, reason, before, after, difference, known, reliable, lost_share)

    if not bool(render.color.isfinite().all()):
        return decision("rejected", "the render itself has NaN or infinite pixels")
    if known < MIN_KNOWN_SHARE:
        return decision("rejected", f"only {known:.1%} of the view is known (at least {MIN_KNOWN_SHARE:.0%})")
    if not usable:
        fault = refined.failure or "the refined view has NaN or infinite pixels"
    else:
        limit = MAX_PSNR_DROP if footprint <= COARSE else COARSE_PSNR_DROP
        fault = _fault(before, after, difference, generates, limit)
        if lost_share > 0 and float((refined.weight > 0).float().mean()) < MIN_KNOWN_SHARE:
            fault = f"it lost what originals resolve on {lost_share:.0%} of the view, and no other pixel is left"
    if fault is None:
        return decision("accepted", "agrees with the reliable pixels")
    if not enough:
        return decision("rejected", f"{fault}; too few reliable pixels to fall back on")
    return decision("reliable_only", fault)


def keep_detail(refined: RefinedView, render: Rendered, mask: ReliablePixels) -> tuple[RefinedView, float]:
    """``refined`` with weight 0 where it lost what an original resolves (`lost_detail`), and those pixels' share."""
    if refined.failure or not refined_is_finite(refined):
        return refined, 0.0
    _, lost = lost_detail(refined.image, render.color, mask)
    return dataclasses.replace(refined, weight=refined.weight * ~lost), float(lost.float().mean())


def refined_is_finite(refined: RefinedView) -> bool:
    """Whether every colour and every weight is a number."""
    return bool(refined.image.isfinite().all()) and bool(refined.weight.isfinite().all())


def _typical_footprint(mask: ReliablePixels) -> float:
    """Side of a photograph's pixel in pixels of the view: the median over the sparse reliable pixels, 1 without any."""
    return float(mask.footprint[mask.sparse].median()) if bool(mask.sparse.any()) else 1.0


def _fault(
    before: float | None, after: float | None, difference: float | None, generates: bool, limit: float
) -> str | None:
    """What is wrong with a refined view whose pixels are numbers, or None."""
    if difference is not None and difference >= MAX_LOW_FREQUENCY_DIFFERENCE:
        return f"colours moved by {difference:.3f} on the known mask (limit {MAX_LOW_FREQUENCY_DIFFERENCE:g})"
    if before is not None and after is not None and after < before - limit:
        return f"reliable pixels went from {before:.1f} to {after:.1f} dB (limit -{limit:g} dB)"
    if generates and after is None:
        return "too few reliable pixels to check generated detail against"
    return None
