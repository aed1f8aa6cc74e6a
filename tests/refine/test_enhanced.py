"""A refiner with an enhancer behind it: colours, provenance, passes, and what happens when one of the two cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhanced import EnhancedRefiner
from closeup_ns.refine.imaging.color import low_frequencies
from closeup_ns.refine.options import EnhanceConfig, RefinerConfig
from closeup_ns.refine.protocol import GuideImage, RefinedView, Refiner, RefineRequest
from closeup_ns.refine.refiner import build_refiner
from closeup_ns.refine.results import failed, generated
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.rendered import Rendered
from tests.refine.scene import camera

HEIGHT, WIDTH = 50, 72


def make_request(count: int) -> RefineRequest:
    """``count`` smooth views side by side, with an anchor each; everything is known."""
    generator = torch.Generator().manual_seed(11)

    def smooth(height: int, width: int) -> Tensor:
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).contiguous()

    views = [camera(0.4 * index, 0, 1, WIDTH, HEIGHT) for index in range(count)]
    ones = torch.ones(HEIGHT, WIDTH)
    renders = [Rendered(smooth(HEIGHT, WIDTH), 2 * ones, ones.clone()) for _ in views]
    anchors = [
        GuideImage(f"train/{index}", camera(0.4 * index, 0, 0.5, 40, 40), smooth(40, 40), True)
        for index in range(count)
    ]
    nothing = torch.zeros(3, HEIGHT, WIDTH)
    masks = [
        ReliablePixels(ones > 0, ones < 0, nothing, nothing, torch.ones(HEIGHT, WIDTH, dtype=torch.int64), ones)
        for _ in views
    ]
    names = [f"t0_update_{index:02d}" for index in range(count)]
    return RefineRequest(views, renders, masks, [], 0, names, anchors)


class Refined:
    """A refiner that calls the top real, and trusts a quarter."""

    name = "see3d"

    def __init__(self, frames: int = 18, generates: bool = True, fails: Sequence[int] = ()) -> None:
        self.frames, self.generates, self.fails = frames, generates, fails
        self.closed = 0

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        results = []
        for index, render in enumerate(request.renders):
            real = torch.zeros_like(render.alpha, dtype=torch.bool)
            real[:5] = True
            why = "no luck" if index in self.fails else None
            image = render.color * 0.5 + 0.25
            results.append(RefinedView(image, real, 0.25 * torch.ones_like(render.alpha), {"seconds": 1.0}, why))
        return results

    def close(self) -> None:
        self.closed += 1


class Sharpener:
    """A refiner that adds noise and a cast of colour, or what ``paint`` makes of a picture."""

    name, generates = "see3d-sr", True

    def __init__(self, frames: int = 8, paint: Callable[[int, Tensor], Tensor | str] | None = None) -> None:
        self.frames, self.paint = frames, paint
        self.request: list[RefineRequest] = []
        self.closed = 0

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        self.request.append(request)
        made = [self._painted(index, render.color) for index, render in enumerate(request.renders)]
        return [
            failed(render, picture) if isinstance(picture, str) else generated(render, mask.dense, picture)
            for render, mask, picture in zip(request.renders, request.masks, made, strict=True)
        ]

    def _painted(self, index: int, image: Tensor) -> Tensor | str:
        if self.paint is not None:
            return self.paint(index, image)
        noise = 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(index))
        return (image + torch.tensor([0.1, 0.0, -0.1]) + noise).clamp(0, 1)

    def close(self) -> None:
        self.closed += 1


def test_detail_is_added_colours_are_kept_and_nothing_counts_as_real() -> None:
    request = make_request(3)
    sharpener = Sharpener()
    made = EnhancedRefiner(Refined(fails=[1]), sharpener)
    assert isinstance(made, Refiner)
    assert (made.name, made.generates, made.frames) == ("see3d+see3d-sr", True, 18)
    plain = Refined(fails=[1]).refine(request)
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
    (second,) = sharpener.request
    assert list(second.names) == ["t0_update_00", "t0_update_02"] and second.anchors is request.anchors
    assert torch.equal(second.renders[1].color, plain[2].image) and second.masks == [request.masks[0], request.masks[2]]


def test_what_a_refiner_without_invention_did_not_know_is_now_worth_something() -> None:
    request = make_request(1)
    request.renders[0].alpha[10:] = 0.25
    request.renders[0].alpha[20:] = 0.0
    request.masks[0].dense[:] = False
    request.masks[0].dense[:, :3] = True
    (view,) = EnhancedRefiner(Refined(generates=False), Sharpener()).refine(request)
    assert (view.weight[:, :3] == 1).all() and (view.weight[:10] == 1).all()
    assert (view.weight[10:20, 3:] == 0.5).all() and not view.weight[20:, 3:].any()
    assert not view.real.any()


def test_the_passes_are_the_enhancers_where_the_refiner_takes_each_view_alone() -> None:
    assert EnhancedRefiner(Refined(frames=1), Sharpener(6)).frames == 6
    assert EnhancedRefiner(Refined(frames=9), Sharpener(6)).frames == 9


@pytest.mark.parametrize("generates", [True, False])
def test_a_picture_that_fails_leaves_the_refined_view_with_a_note(
    generates: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it count as generated: real colours would weigh as invented ones."""
    request = make_request(2)
    sharpener = Sharpener(paint=lambda index, image: image if index else "wrote no picture")
    plain = Refined().refine(request)
    first, second = EnhancedRefiner(Refined(generates=generates), sharpener).refine(request)
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
    results = EnhancedRefiner(Refined(fails=[0]), Sharpener(paint=broken)).refine(request)
    assert "enhance_failure" not in results[0].notes
    for view, before in zip(results[1:], Refined().refine(request)[1:], strict=True):
        assert view.notes["enhance_failure"] == "its weights are gone"
        assert torch.equal(view.image, before.image) and torch.equal(view.real, before.real)


def test_only_one_of_the_two_is_in_memory() -> None:
    refiner, sharpener = Refined(), Sharpener()
    made = EnhancedRefiner(refiner, sharpener)
    made.refine(make_request(1))
    assert (refiner.closed, sharpener.closed) == (1, 1)
    assert EnhancedRefiner(Refined(fails=[0]), sharpener).refine(make_request(1))[0].failure == "no luck"
    assert len(sharpener.request) == 1, "it is not called where no view is left"


def test_a_program_sharpens_by_the_same_protocol_as_it_refines(tmp_path: Path) -> None:
    program = tmp_path / "sharpen.py"
    program.write_text("""
import json, pathlib, sys
from PIL import Image, ImageFilter
source, sink = map(pathlib.Path, sys.argv[1:3])
for view in json.loads((source / "request.json").read_text())["views"]:
    picture = Image.open(source / view["render"])
    picture.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0)).save(sink / view["output"])
""")
    run = f"{sys.executable} {program} {{input}} {{output}}"
    refiner, line = build_refiner(RefinerConfig("none", enhance=EnhanceConfig("command", run)), "cpu")
    request = make_request(2)
    for view, render in zip(refiner.refine(request), request.renders, strict=True):
        assert view.notes["enhance"] == "command" and float(view.notes["enhance_change"]) > 0
        assert float(view.image.diff(dim=1).abs().max()) > float(render.color.diff(dim=1).abs().max())
    assert line.endswith("enhanced by command")
