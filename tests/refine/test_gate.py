"""The gate: truth passes, colour shifts and blocks do not, and what is kept instead."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine.imaging.filters import gaussian_blur
from closeup_ns.refine.judging.gate import (
    MAX_PSNR_DROP,
    GateDecision,
    judge,
    low_frequency_difference,
)
from closeup_ns.refine.protocol import RefinedView
from closeup_ns.views.psnr import psnr
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.rendered import Rendered
from tests.refine.scene import backed, close_up, faulty, known, photographs, solid

Scene = tuple[Rendered, Rendered, ReliablePixels]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Truth, faulty render and what photographs say, three times closer."""
    view, truth = close_up(3.0)
    render = faulty(truth, torch.Generator().manual_seed(0))
    return truth, render, known(view, render, photographs())


def candidate(image: Tensor) -> RefinedView:
    size = image.shape[:2]
    return RefinedView(image, torch.zeros(size, dtype=torch.bool), torch.ones(size))


def test_the_truth_is_accepted(scene: Scene) -> None:
    truth, render, mask = scene
    decision = judge(candidate(truth.color), render, mask, generates=True)
    assert decision.accepted, decision.reason
    assert decision.psnr_before is not None
    assert decision.psnr_after is not None
    assert decision.psnr_after > decision.psnr_before


def test_the_render_itself_is_accepted(scene: Scene) -> None:
    _, render, mask = scene
    decision = judge(candidate(render.color), render, mask, generates=True)
    assert decision.accepted
    assert decision.low_frequency_difference == 0.0
    assert decision.psnr_after == decision.psnr_before


def test_a_view_that_was_not_refined_falls_back_and_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, render, mask = scene
    failed = dataclasses.replace(candidate(truth.color), failure="out of GPU memory with one view")
    decision = judge(failed, render, mask, generates=True)
    assert decision.verdict == "reliable_only" and decision.reason == "out of GPU memory with one view"
    assert decision.psnr_before is not None and decision.psnr_after is None
    monkeypatch.setattr("closeup_ns.refine.judging.gate.MIN_RELIABLE_PIXELS", 10**6)
    decision = judge(failed, render, mask, generates=True)
    assert decision.verdict == "rejected" and decision.reason.startswith("out of GPU memory")


def with_a_block(image: Tensor) -> Tensor:
    """What users of other tools report: coloured blocks in an otherwise good image, which a mean would overlook."""
    image = image.clone()
    image[16:32, 16:32] = 1 - image[16:32, 16:32].round()
    return image


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: image + torch.tensor([0.15, 0.0, 0.0]), "colours moved"),
        (lambda image: image - torch.tensor([0.15, 0.0, 0.0]), "colours moved"),
        (with_a_block, "colours moved"),
        # Noise leaves low frequencies alone, so only the reliable pixels can tell.
        (
            lambda image: image + 0.2 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)),
            "reliable pixels went from",
        ),
    ],
)
@pytest.mark.parametrize("generates", [True, False])
def test_what_contradicts_the_photographs_is_refused(
    scene: Scene, spoil: Callable[[Tensor], Tensor], generates: bool, reason: str
) -> None:
    truth, _, mask = scene
    decision = judge(candidate(spoil(truth.color).clamp(0, 1)), truth, mask, generates)
    assert decision.verdict == "reliable_only" and reason in decision.reason


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_pixels_are_refused_wherever_they_are(scene: Scene, bad: float) -> None:
    truth, render, mask = scene
    image = truth.color.clone()
    image[0, 0, 0] = bad
    assert judge(candidate(image), render, mask, generates=False).verdict == "reliable_only"
    weighted = RefinedView(truth.color, mask.sparse, torch.full_like(truth.alpha, bad))
    assert not judge(weighted, render, mask, generates=False).accepted
    broken = Rendered(image, render.depth, render.alpha)
    assert judge(candidate(truth.color), broken, mask, generates=False).verdict == "rejected"


def only(mask: ReliablePixels, dense: int | None = None, sparse: int | None = None) -> ReliablePixels:
    """``mask`` with at most so many pixels of each kind."""

    def first(flags: Tensor, count: int | None) -> Tensor:
        return flags if count is None else flags & (flags.flatten().cumsum(0).reshape(flags.shape) <= count)

    kept = first(mask.sparse, sparse)
    return ReliablePixels(first(mask.dense, dense), kept, mask.color * kept, mask.blended, mask.support, mask.footprint)


def test_a_view_that_knows_too_little_is_dropped(scene: Scene) -> None:
    truth, render, mask = scene
    decision = judge(candidate(truth.color), render, only(mask, dense=100), generates=False)
    assert decision.verdict == "rejected"


def test_generated_detail_without_evidence_is_rejected(scene: Scene) -> None:
    truth, _, mask = scene
    few = only(mask, sparse=10)
    assert judge(candidate(truth.color), truth, few, generates=False).accepted
    generated = judge(candidate(truth.color), truth, few, generates=True)
    assert generated.verdict == "rejected"
    assert generated.psnr_after is None


def printed(zoom: int) -> tuple[Tensor, Rendered, ReliablePixels]:
    """A page whose letters no photograph resolves: the truth [H, W, 3], the mush that was rendered, and box averages.

    One photograph's pixel lands in each ``zoom`` x ``zoom`` pixels of the view.
    """
    generator = torch.Generator().manual_seed(zoom)
    size = (zoom * 14, zoom * 18)
    coarse = F.interpolate(torch.rand(1, 3, 6, 8, generator=generator), size, mode="bicubic")
    letters = 0.5 * (torch.rand(1, 1, *size, generator=generator) < 0.5)
    truth = 0.5 * coarse.clamp(0, 1) + letters
    photograph = F.avg_pool2d(truth, zoom)[0]
    sparse = torch.zeros(size, dtype=torch.bool)
    sparse[zoom // 2 :: zoom, zoom // 2 :: zoom] = True
    color = torch.zeros(3, *size)
    color[:, sparse] = photograph.flatten(1)
    footprint = torch.where(sparse, float(zoom), 1.0)
    everywhere = torch.ones(size, dtype=torch.bool)
    mask = backed(everywhere, sparse=sparse, color=color, blended=truth[0], footprint=footprint)
    mush = gaussian_blur(truth[0], 0.5 * zoom).permute(1, 2, 0)
    return truth[0].permute(1, 2, 0), solid(mush), mask


@pytest.mark.parametrize("zoom", [3, 9, 27])
def test_a_perfect_close_up_is_accepted_although_no_photograph_holds_its_detail(zoom: int) -> None:
    """Pixel by pixel it agrees less with the photographs than the mush does; large shapes of another page are none."""
    truth, render, mask = printed(zoom)
    plain = [psnr(image, mask.color.permute(1, 2, 0), mask.sparse) for image in (render.color, truth)]
    assert plain[1] < plain[0] - MAX_PSNR_DROP
    decision = judge(candidate(truth), render, mask, generates=True)
    assert decision.accepted, decision.reason
    other = torch.roll(truth, (5 * zoom, 6 * zoom), (0, 1)).flip(0)
    assert not judge(candidate(other), render, mask, generates=True).accepted


def test_detail_may_lie_a_little_beside_its_place_but_not_elsewhere(generator: torch.Generator) -> None:
    """Where native crops resolve the view, pixel by pixel both would be equally wrong (issue 15.2)."""
    page = gaussian_blur(torch.rand(3, 80, 112, generator=generator), 1.0)
    everywhere = torch.ones(80, 112, dtype=torch.bool)
    mask = backed(everywhere, sparse=everywhere, color=page, blended=page)
    mush = gaussian_blur(page, 2.0)
    beside = torch.roll(page, (1, -2), (1, 2)) + 0.03
    elsewhere = mush + torch.roll(page - mush, (20, 30), (1, 2))
    render = solid(mush.permute(1, 2, 0))
    plain = [psnr(image.permute(1, 2, 0), page.permute(1, 2, 0)) for image in (mush, beside, elsewhere)]
    assert plain[1] < plain[0] and plain[2] < plain[0]
    good, bad = (judge(candidate(image.permute(1, 2, 0)), render, mask, True) for image in (beside, elsewhere))
    assert good.accepted, good.reason
    assert "reliable pixels went from" in bad.reason


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.3, 0.3), st.integers(1, 20), st.integers(1, 40), st.integers(1, 40))
def test_a_constant_shift_measures_as_itself(shift: float, block: int, height: int, width: int) -> None:
    """Whatever the blocks, the mask and the image's size; pixels outside the mask are not looked at."""
    generator = torch.Generator().manual_seed(height * 41 + width)
    render = torch.rand(height, width, 3, generator=generator)
    mask = torch.rand(height, width, generator=generator) < 0.5
    moved = torch.where(mask[..., None], render + torch.tensor([0.0, shift, 0.0]), render + 9.0)
    measured = low_frequency_difference(moved, render, mask, block)
    assert measured is None if not mask.any() else measured == pytest.approx(abs(shift), abs=1e-4)


def test_decisions_survive_json(scene: Scene) -> None:
    truth, render, mask = scene
    for image in (truth.color, truth.color * math.nan, truth.color * 0):
        decision = judge(candidate(image), render, mask, generates=True)
        written = json.dumps(decision.to_dict(), allow_nan=False)
        assert GateDecision.from_dict(json.loads(written)) == decision
        assert json.loads(written)["accepted"] == decision.accepted
