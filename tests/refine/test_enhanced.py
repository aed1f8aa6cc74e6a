"""A refiner with an enhancer behind it: colours, provenance, passes, and what happens when one of the two cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhanced import EnhancedRefiner
from closeup_ns.refine.imaging.color import low_frequencies
from closeup_ns.refine.protocol import RefinedView, Refiner, RefineRequest
from closeup_ns.refine.results import failed, generated
from closeup_ns.views.rendered import Rendered
from tests.refine.scene import request_of, solid


def make_request(count: int) -> RefineRequest:
    """``count`` smooth views, all of whose pixels are known."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(11))
    smooth = F.interpolate(coarse, (50, 72), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1).contiguous()
    return request_of([solid(picture) for picture in smooth])


class Plain:
    """A refiner that calls the top real, and trusts a quarter."""

    name = "see3d"

    def __init__(self, frames: int = 18, generates: bool = True, fails: Sequence[int] = ()) -> None:
        self.frames, self.generates, self.fails = frames, generates, fails
        self.requests: list[RefineRequest] = []
        self.closed = 0

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        self.requests.append(request)
        return [self.view(index, render) for index, render in enumerate(request.renders)]

    def view(self, index: int, render: Rendered) -> RefinedView:
        real = torch.zeros_like(render.alpha, dtype=torch.bool)
        real[:5] = True
        why = "no luck" if index in self.fails else None
        return RefinedView(render.color * 0.5 + 0.25, real, torch.full_like(render.alpha, 0.25), {"seconds": 1.0}, why)

    def close(self) -> None:
        self.closed += 1


class Sharpener(Plain):
    """A refiner that adds noise and a cast of colour, or what ``paint`` makes of a picture."""

    name = "see3d-sr"

    def __init__(self, frames: int = 8, paint: Callable[[int, Tensor], Tensor | str] | None = None) -> None:
        super().__init__(frames)
        self.paint = paint or self.noisy

    def view(self, index: int, render: Rendered) -> RefinedView:
        picture = self.paint(index, render.color)
        if isinstance(picture, str):
            return failed(render, picture)
        return generated(render, torch.ones_like(render.alpha, dtype=torch.bool), picture)

    def noisy(self, index: int, image: Tensor) -> Tensor:
        noise = 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(index))
        return (image + torch.tensor([0.1, 0.0, -0.1]) + noise).clamp(0, 1)


def test_detail_is_added_colours_are_kept_and_nothing_counts_as_real() -> None:
    request = make_request(3)
    sharpener = Sharpener()
    made = EnhancedRefiner(Plain(fails=[1]), sharpener)
    assert isinstance(made, Refiner)
    assert (made.name, made.generates, made.frames) == ("see3d+see3d-sr", True, 18)
    plain = Plain(fails=[1]).refine(request)
    results = made.refine(request)
    for index in (0, 2):
        view, before = results[index], plain[index]
        assert not view.real.any()
        assert torch.equal(view.weight, before.weight)
        difference = (view.image - before.image).permute(2, 0, 1)
        assert float(difference.std()) > 0.03
        assert float(low_frequencies(difference).abs().max()) < 0.01  # the cast of 0.1 is gone
        assert float(view.image.min()) >= 0 and float(view.image.max()) <= 1
        assert view.notes["seconds"] == 1.0 and view.notes["enhance"] == "see3d-sr"
        assert view.notes["enhance_change"] == pytest.approx(float(difference.abs().mean()))
    assert results[1].failure == "no luck" and results[1].notes == {"seconds": 1.0}
    (second,) = sharpener.requests
    assert list(second.names) == ["t0_update_00", "t0_update_02"] and second.anchors is request.anchors
    assert torch.equal(second.renders[1].color, plain[2].image) and second.masks == [request.masks[0], request.masks[2]]


def test_what_a_refiner_without_invention_did_not_know_is_now_worth_something() -> None:
    request = make_request(1)
    request.renders[0].alpha[10:] = 0.25
    request.renders[0].alpha[20:] = 0.0
    request.masks[0].dense[:] = False
    request.masks[0].dense[:, :3] = True
    (view,) = EnhancedRefiner(Plain(generates=False), Sharpener()).refine(request)
    assert (view.weight[:, :3] == 1).all() and (view.weight[:10] == 1).all()
    assert (view.weight[10:20, 3:] == 0.5).all() and not view.weight[20:, 3:].any()
    assert not view.real.any()


def test_the_passes_are_the_enhancers_where_the_refiner_takes_each_view_alone() -> None:
    assert EnhancedRefiner(Plain(frames=1), Sharpener(6)).frames == 6
    assert EnhancedRefiner(Plain(frames=9), Sharpener(6)).frames == 9


@pytest.mark.parametrize("generates", [True, False])
def test_a_picture_that_fails_leaves_the_refined_view_with_a_note(
    generates: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it count as generated: real colours would weigh as invented ones."""
    request = make_request(2)
    sharpener = Sharpener(paint=lambda index, image: image if index else "wrote no picture")
    plain = Plain().refine(request)
    first, second = EnhancedRefiner(Plain(generates=generates), sharpener).refine(request)
    assert first.notes["enhance_failure"] == "wrote no picture" and "enhance" not in first.notes
    assert first.failure is None and first.generated is generates
    assert torch.equal(first.image, plain[0].image) and torch.equal(first.real, plain[0].real)
    assert second.notes["enhance"] == "see3d-sr" and second.generated is None
    assert torch.equal(second.image, plain[1].image)  # nothing changed, bit for bit
    assert "see3d-sr: 1 of 2 views stay as they were refined (wrote no picture)" in capsys.readouterr().out


def test_an_enhancer_that_cannot_work_costs_no_view() -> None:
    def broken(index: int, image: Tensor) -> Tensor:
        raise RefinerError("its weights are gone")

    request = make_request(3)
    results = EnhancedRefiner(Plain(fails=[0]), Sharpener(paint=broken)).refine(request)
    assert "enhance_failure" not in results[0].notes
    for view, before in zip(results[1:], Plain().refine(request)[1:], strict=True):
        assert view.notes["enhance_failure"] == "its weights are gone"
        assert torch.equal(view.image, before.image) and torch.equal(view.real, before.real)


def test_only_one_of_the_two_is_in_memory() -> None:
    refiner, sharpener = Plain(), Sharpener()
    made = EnhancedRefiner(refiner, sharpener)
    made.refine(make_request(1))
    assert (refiner.closed, sharpener.closed) == (1, 1)
    assert EnhancedRefiner(Plain(fails=[0]), sharpener).refine(make_request(1))[0].failure == "no luck"
    assert len(sharpener.requests) == 1, "it is not called where no view is left"
