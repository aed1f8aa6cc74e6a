"""A refiner with an enhancer behind it: colours, provenance, passes, and what happens when one of the two cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.color import low_frequencies
from closeup_ns.refine.enhance.enhanced import EnhancedRefiner
from closeup_ns.refine.refiner import GuideImage, RefinedView, Refiner, RefineRequest
from tests.refine import stand_ins

Answer = Callable[[Sequence[Tensor]], list[Any]]


class Refined:
    """A refiner that calls the upper half real, and trusts a quarter."""

    name = "see3d"

    def __init__(self, frames: int = 18, generates: bool = True, fails: Sequence[int] = ()) -> None:
        self.frames, self.generates, self.fails = frames, generates, fails
        self.closed = 0
        self.errors: list[Exception] = []

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        if self.errors:
            raise self.errors.pop(0)
        results = []
        for index, render in enumerate(request.renders):
            real = torch.zeros_like(render.alpha, dtype=torch.bool)
            real[:5] = True
            image = (render.color * 0.5 + 0.25).to(render.color)
            why = "no luck" if index in self.fails else None
            results.append(RefinedView(image, real, 0.25 * torch.ones_like(render.alpha), {"seconds": 1.0}, why))
        return results

    def close(self) -> None:
        self.closed += 1


class Sharpener:
    """Records what it is given; adds noise and a cast of colour."""

    def __init__(
        self, name: str = "sd-x4", frames: int = 1, guided: bool = False, answer: Answer | None = None
    ) -> None:
        self.name, self.frames, self.guided, self.answer = name, frames, guided, answer
        self.calls: list[tuple[int, list[str], int]] = []
        self.closed = 0

    def enhance(self, images: Sequence[Tensor], references: Sequence[GuideImage], seed: int) -> list[Any]:
        self.calls.append((len(images), [guide.name for guide in references], seed))
        if self.answer is not None:
            return self.answer(images)
        generator = torch.Generator().manual_seed(seed)
        cast = torch.tensor([0.1, 0.0, -0.1])
        return [(image + cast + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1) for image in images]

    def close(self) -> None:
        self.closed += 1


def test_detail_is_added_colours_are_kept_and_nothing_counts_as_real() -> None:
    asked = stand_ins.request(3)
    made = EnhancedRefiner(Refined(fails=[1]), Sharpener())
    assert isinstance(made, Refiner)
    assert (made.name, made.generates, made.frames) == ("see3d+sd-x4", True, 18)
    plain = Refined(fails=[1]).refine(asked)
    results = made.refine(asked)
    for index in (0, 2):
        view, before = results[index], plain[index]
        assert not view.real.any()
        assert torch.equal(view.weight, before.weight)
        difference = (view.image - before.image).permute(2, 0, 1)
        assert float(difference.std()) > 0.03
        assert float(low_frequencies(difference).abs().max()) < 0.01  # the cast of 0.1 is gone
        assert float(view.image.min()) >= 0 and float(view.image.max()) <= 1
        assert view.notes["seconds"] == 1.0 and view.notes["enhance"] == "sd-x4"
        assert view.notes["enhance_change"] == pytest.approx(float(difference.abs().mean()))
    assert results[1].failure == "no luck" and results[1].notes == {"seconds": 1.0}
    assert torch.equal(results[1].image, plain[1].image)


def test_a_view_gets_the_same_noise_in_any_company() -> None:
    asked = stand_ins.request(3)
    sharpener = Sharpener()
    together = EnhancedRefiner(Refined(), sharpener).refine(asked)
    only = {name: [getattr(asked, name)[2]] for name in ("views", "renders", "masks", "names")}
    (alone,) = EnhancedRefiner(Refined(), Sharpener()).refine(replace(asked, **only))
    assert torch.equal(alone.image, together[2].image)
    assert [call[0] for call in sharpener.calls] == [1, 1, 1]
    assert all(names == [] for _, names, _ in sharpener.calls)
    assert len({seed for *_, seed in sharpener.calls}) == 3
    (other,) = EnhancedRefiner(Refined(), Sharpener()).refine(replace(asked, **only, seed=1))
    assert not torch.equal(alone.image, other.image)


def test_what_a_refiner_without_invention_did_not_know_is_now_worth_something() -> None:
    asked = stand_ins.request(1)
    asked.renders[0].alpha[10:] = 0.25
    asked.renders[0].alpha[20:] = 0.0
    asked.masks[0].dense[:] = False
    asked.masks[0].dense[:, :3] = True
    (view,) = EnhancedRefiner(Refined(generates=False), Sharpener()).refine(asked)
    assert (view.weight[:, :3] == 1).all() and (view.weight[:10] == 1).all()
    assert (view.weight[10:20, 3:] == 0.5).all() and not view.weight[20:, 3:].any()
    assert not view.real.any()


def test_joint_enhancers_work_in_passes_and_are_shown_what_is_near_and_what_is_finished() -> None:
    asked = stand_ins.request(8)
    sharpener = Sharpener("see3d-sr", frames=6, guided=True)
    made = EnhancedRefiner(Refined(), sharpener)
    assert made.frames == 18
    assert EnhancedRefiner(Refined(frames=1), sharpener).frames == 6
    assert EnhancedRefiner(Refined(frames=1), Sharpener()).frames == 1
    results = made.refine(asked)
    assert all("enhance" in view.notes for view in results)
    (first, shown, _), (second, later, _) = sharpener.calls
    assert (first, second) == (4, 4)
    assert len(shown) == len(later) == 2
    # The anchors are half a unit behind the views, the finished view 03 is beside 04 without that.
    assert all(name in {f"train/{index}" for index in range(4)} for name in shown)
    assert "t0_update_03" in later


def test_a_pass_without_references_for_those_who_need_none() -> None:
    sharpener = Sharpener("command", frames=5)
    EnhancedRefiner(Refined(), sharpener).refine(stand_ins.request(8))
    assert [(count, names) for count, names, _ in sharpener.calls] == [(5, []), (3, [])]


@pytest.mark.parametrize(
    "bad, says",
    [
        (lambda image: "wrote no picture", "wrote no picture"),
        (lambda image: image * float("nan"), "NaN"),
        (lambda image: image[:-1], "another size"),
    ],
)
def test_a_picture_that_fails_leaves_the_refined_view_with_a_note(bad: Any, says: str) -> None:
    asked = stand_ins.request(2)
    sharpener = Sharpener("command", 4, answer=lambda images: [bad(images[0]), images[1]])
    plain = Refined().refine(asked)
    first, second = EnhancedRefiner(Refined(), sharpener).refine(asked)
    assert says in str(first.notes["enhance_failure"]) and "enhance" not in first.notes
    assert first.failure is None
    assert torch.equal(first.image, plain[0].image) and torch.equal(first.real, plain[0].real)
    assert second.notes["enhance"] == "command"
    assert torch.equal(second.image, plain[1].image)  # nothing changed, bit for bit


def test_an_enhancer_that_cannot_work_costs_no_view(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(images: Sequence[Tensor]) -> list[Any]:
        raise RefinerError("its weights are gone")

    asked = stand_ins.request(3)
    sharpener = Sharpener(answer=broken)
    results = EnhancedRefiner(Refined(fails=[0]), sharpener).refine(asked)
    assert len(sharpener.calls) == 1  # not asked in vain again
    assert "sd-x4: 2 of 3 views stay as they were refined (its weights are gone)" in capsys.readouterr().out
    assert "enhance_failure" not in results[0].notes
    for view, before in zip(results[1:], Refined().refine(asked)[1:], strict=True):
        assert view.notes["enhance_failure"] == "its weights are gone"
        assert torch.equal(view.image, before.image) and torch.equal(view.real, before.real)


@pytest.mark.parametrize("generates", [True, False])
def test_a_view_that_is_not_enhanced_is_no_more_generated_than_it_was(generates: bool) -> None:
    """Else real colours would weigh as invented ones, and a round without a new detail would densify."""
    sharpener = Sharpener("command", 4, answer=lambda images: ["no picture", images[1]])
    first, second = EnhancedRefiner(Refined(generates=generates), sharpener).refine(stand_ins.request(2))
    assert first.generated is generates and second.generated in (None, True)


def test_too_little_memory_first_frees_the_refiner_then_takes_fewer_pictures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def crowded(images: Sequence[Tensor]) -> list[Any]:
        if len(images) > 1:
            raise RefinerOutOfMemory("CUDA out of memory")
        return list(images)

    asked = stand_ins.request(4)
    refiner, sharpener = Refined(), Sharpener("see3d-sr", 8, guided=True, answer=crowded)
    made = EnhancedRefiner(refiner, sharpener)
    results = made.refine(asked)
    assert refiner.closed == 1
    assert [call[0] for call in sharpener.calls] == [4, 4, 2, 1, 1, 1, 1]
    assert all(view.notes["enhance"] == "see3d-sr" for view in results)
    assert len(capsys.readouterr().out.splitlines()) == 3
    made.refine(asked)  # remembers
    assert [call[0] for call in sharpener.calls[7:]] == [1, 1, 1, 1]
    assert (refiner.closed, sharpener.closed) == (2, 1)  # one of the two at a time
    made.close()
    made.refine(asked)  # a new round tries again
    assert sharpener.calls[11][0] == 4


def test_never_enough_memory_is_a_note() -> None:
    def crowded(images: Sequence[Tensor]) -> list[Any]:
        raise RefinerOutOfMemory("CUDA out of memory")

    sharpener = Sharpener(answer=crowded)
    results = EnhancedRefiner(Refined(), sharpener).refine(stand_ins.request(2))
    assert all(view.notes["enhance_failure"] == "CUDA out of memory" and view.failure is None for view in results)
    assert len(sharpener.calls) == 3


def test_a_refiner_that_does_not_fit_is_tried_without_the_enhancer() -> None:
    asked = stand_ins.request(2)
    refiner, sharpener = Refined(), Sharpener()
    refiner.errors = [RefinerOutOfMemory("no room")]
    made = EnhancedRefiner(refiner, sharpener)
    results = made.refine(asked)
    assert sharpener.closed == 1 and all("enhance" in view.notes for view in results)
    refiner.errors = [RefinerOutOfMemory("not even alone")]
    with pytest.raises(RefinerOutOfMemory, match="not even alone"):
        made.refine(asked)
    refiner.errors = [RefinerOutOfMemory("no room"), RefinerOutOfMemory("still none")]
    with pytest.raises(RefinerOutOfMemory, match="still none"):
        EnhancedRefiner(refiner, sharpener).refine(asked)
    refiner.errors = [RefinerError("no weights")]
    with pytest.raises(RefinerError, match="no weights"):
        EnhancedRefiner(refiner, sharpener).refine(asked)
