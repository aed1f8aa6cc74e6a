"""The refiner around any model: stubs that tint, fail and fill the memory; then tiny random weights."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.refiner import GuideImage, Refiner, RefineRequest
from closeup_ns.refine.see3d.refiner import See3DRefiner
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.view import View
from tests.refine.scene import WALL, camera, seen

CPU = torch.device("cpu")


@dataclass
class Call:
    """One joint pass as the model got it."""

    references: Tensor
    renders: Tensor
    masks: Tensor
    latents: Tensor
    noise: Tensor
    """The first number of each picture's generator."""
    options: dict[str, Any]


@dataclass
class Answer:
    images: Tensor
    evaluations: int


@dataclass
class Stub:
    """A model that gives back what ``paint`` makes of the renders."""

    paint: Callable[[Call], Tensor] = lambda call: call.renders
    most: int = 1000
    """Frames that fit into its memory."""
    error: Callable[[], Exception] = lambda: torch.cuda.OutOfMemoryError("CUDA out of memory")
    calls: list[Call] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __call__(
        self,
        references: Tensor,
        renders: Tensor,
        masks: Tensor,
        *,
        generator: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
        latents: Tensor | None = None,
        batched_guidance: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Answer:
        assert latents is not None and progress is not None and steps is not None
        assert len(generator) == len(references) + len(renders)
        noise = torch.stack([torch.randn((), generator=one) for one in generator])
        options = {"steps": steps, "guidance": guidance, "batched_guidance": batched_guidance}
        call = Call(references, renders, masks, latents, noise, options)
        self.calls.append(call)
        if len(generator) > self.most:
            raise self.error()
        for done in range(steps):
            progress(done + 1, steps)
        return Answer(self.paint(call), steps)

    def load(self, config: See3DRefinerConfig, network: str, device: torch.device) -> Stub:
        self.loaded.append(network)
        return self


def refiner(stub: Stub, output: io.StringIO | None = None, **options: Any) -> See3DRefiner:
    config = dataclasses.replace(See3DRefinerConfig(weights="tiny", size=64, feather=16, steps=4), **options)
    return See3DRefiner(config, CPU, stub.load, Console(file=output or io.StringIO(), width=200))


@functools.cache
def close(index: int, width: int = 96, height: int = 72) -> tuple[View, Rendered]:
    view = camera(0.1 * index - 0.3, 0.3, WALL - 1.0, width, height)
    color, depth = seen(view, 1)
    return view, Rendered(color.permute(1, 2, 0).contiguous(), depth, torch.ones_like(depth))


@functools.cache
def photograph(index: int) -> GuideImage:
    view = camera(0.15 * index - 0.3, 0.2, 0.0, 160, 120)
    return GuideImage(f"train/{index}", view, seen(view, 1)[0].permute(1, 2, 0), True)


def guides(count: int) -> list[GuideImage]:
    return [photograph(index) for index in range(count)]


def known(dense: Tensor) -> ReliablePixels:
    empty = torch.zeros(3, *dense.shape)
    return ReliablePixels(dense, torch.zeros_like(dense), empty, empty, dense.long())


def request(count: int = 3, references: int = 2, seed: int = 7, **changes: Any) -> RefineRequest:
    views, renders = zip(*[close(index) for index in range(count)], strict=True) if count else ((), ())
    masks = [known(torch.ones(view.height, view.width, dtype=torch.bool)) for view in views]
    names = [f"t0_update_{index:02d}" for index in range(count)]
    asked = RefineRequest(list(views), list(renders), masks, [], seed, names, guides(references))
    return dataclasses.replace(asked, **changes)


def with_masks(asked: RefineRequest, dense: Tensor) -> RefineRequest:
    return dataclasses.replace(asked, masks=[known(dense.clone()) for _ in asked.views])


def test_it_is_a_refiner_that_generates() -> None:
    one = refiner(Stub(), frames=9)
    assert isinstance(one, Refiner) and (one.name, one.generates, one.frames) == ("see3d", True, 9)


def test_a_model_that_changes_nothing_gives_the_renders_back() -> None:
    stub = Stub()
    asked = request()
    results = refiner(stub).refine(asked)
    for result, render in zip(results, asked.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
        assert result.failure is None and not result.real.any() and (result.weight == 1).all()
        assert result.image.dtype == render.color.dtype
        facts = {key: value for key, value in result.notes.items() if key not in ("seconds", "known_share")}
        assert facts == {
            "tiles": 4, "frames": 5, "evaluations": 16, "dtype": "fp32", "weights": "tiny random", "network": "sparse",
        }  # fmt: skip
        assert result.notes["known_share"] == 1.0
        assert all(isinstance(value, str) or math.isfinite(value) for value in result.notes.values())
    assert stub.loaded == ["sparse"] and len(stub.calls) == 4
    assert all(call.renders.shape == (3, 3, 64, 64) and call.references.shape == (2, 3, 64, 64) for call in stub.calls)
    assert stub.calls[0].options == {"steps": 4, "guidance": 2.0, "batched_guidance": True}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 9999))
def test_views_of_any_size_come_back_at_their_size(width: int, height: int, seed: int) -> None:
    view = camera(0, 0.3, 3.0, width, height)
    color = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    render = Rendered(color, torch.ones(height, width), torch.ones(height, width))
    mask = known(torch.ones(height, width, dtype=torch.bool))
    stub = Stub()
    result = refiner(stub).refine(RefineRequest([view], [render], [mask], [], seed, anchors=guides(1)))[0]
    torch.testing.assert_close(result.image, color, atol=1e-5, rtol=0)
    assert all(side % 64 == 0 for call in stub.calls for side in call.renders.shape[2:])


def test_views_of_several_sizes_are_refined_with_those_of_their_size() -> None:
    pairs = [close(0), close(1, 50, 60), close(2), close(3, 50, 60)]
    masks = [known(torch.ones(view.height, view.width, dtype=torch.bool)) for view, _ in pairs]
    views, renders = [view for view, _ in pairs], [render for _, render in pairs]
    stub = Stub()
    results = refiner(stub).refine(RefineRequest(views, renders, masks, [], 0, anchors=guides(2)))
    assert [tuple(result.image.shape[:2]) for result in results] == [(72, 96), (60, 50), (72, 96), (60, 50)]
    for result, render in zip(results, renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
    assert [len(call.renders) for call in stub.calls] == [2] * 5


def flat(asked: RefineRequest, color: Tensor) -> RefineRequest:
    """The request with other colours in its only view."""
    return dataclasses.replace(asked, renders=[dataclasses.replace(asked.renders[0], color=color)])


def test_a_cast_is_taken_back_and_detail_is_kept() -> None:
    detail = 0.05 * (-1.0) ** torch.arange(96)
    grey = torch.full((72, 96, 3), 0.5)

    def paint(call: Call) -> Tensor:
        cast = torch.tensor([0.15, -0.1, 0.05])[:, None, None] * (1 + len(stub.calls) % 2)
        return call.renders + cast + (detail[:64] if striped else 0.0)

    for striped in (False, True):
        stub = Stub(paint)
        image = refiner(stub).refine(flat(request(1), grey))[0].image
        # The border, where stripes are cut, keeps some of them in its low frequencies.
        expected = 0.5 + (detail[:, None] if striped else 0.0)
        error = (image - expected).abs()
        assert float(error.max()) < (0.01 if striped else 1e-4), "each tile had its own cast; none leaves a seam"


def test_colours_are_taken_from_what_is_known_only() -> None:
    dense = torch.zeros(72, 96, dtype=torch.bool)
    dense[:, :40] = True
    asked = with_masks(request(1), dense)
    truth = torch.full((72, 96, 3), 0.4)
    hole = truth.clone()
    hole[:, 40:] = 0.0
    asked = dataclasses.replace(asked, renders=[dataclasses.replace(asked.renders[0], color=hole)])
    result = refiner(Stub(lambda call: torch.full_like(call.renders, 0.6))).refine(asked)[0]
    torch.testing.assert_close(result.image, truth, atol=1e-4, rtol=0)


def test_a_tile_in_which_nothing_is_known_follows_its_surroundings() -> None:
    view = camera(0, 0.3, 3.0, 200, 60)
    render = Rendered(torch.full((60, 200, 3), 0.4), torch.ones(60, 200), torch.ones(60, 200))
    dense = (torch.arange(200) < 30).expand(60, 200)
    asked = RefineRequest([view], [render], [known(dense)], [], 0, anchors=guides(1))

    def paint(call: Call) -> Tensor:
        return call.renders + 0.1 * (1 + len(stub.calls) % 3)

    stub = Stub(paint)
    torch.testing.assert_close(refiner(stub).refine(asked)[0].image, render.color, atol=1e-4, rtol=0)
    nothing = dataclasses.replace(asked, masks=[known(torch.zeros(60, 200, dtype=torch.bool))])
    image = refiner(stub).refine(nothing)[0].image
    torch.testing.assert_close(image, image[:1, :1].expand_as(image), atol=1e-4, rtol=0)


def test_generated_colours_are_never_called_real_and_weigh_nothing_before_the_void() -> None:
    dense = (torch.arange(96) < 48).repeat(72, 1)
    dense[3:20, 60] = True  # a thread is chance
    asked = with_masks(request(1), dense)
    alpha = torch.linspace(0, 1, 72)[:, None].expand(72, 96).contiguous()
    asked = dataclasses.replace(asked, renders=[dataclasses.replace(asked.renders[0], alpha=alpha)])
    result = refiner(Stub(lambda call: torch.rand_like(call.renders))).refine(asked)[0]
    assert not result.real.any()
    assert (result.weight[:, :47] == 1).all()
    torch.testing.assert_close(result.weight[:, 50:], (2 * alpha).clamp(0, 1)[:, 50:])


@pytest.mark.parametrize("unknown", ["render", "black"])
def test_the_model_is_told_what_is_known_by_whole_cells(unknown: str) -> None:
    dense = torch.ones(64, 64, dtype=torch.bool)
    dense[20:, 30:] = False
    dense[40, 5] = True
    view, render = close(0, 64, 64)
    stub = Stub()
    asked = RefineRequest([view], [render], [known(dense)], [], 0, anchors=guides(2))
    result = refiner(stub, unknown=unknown).refine(asked)[0]
    mask = stub.calls[0].masks[0]
    assert mask[:16].all() and mask[:, :24].all() and not mask[16:, 24:].any()
    shown, image = stub.calls[0].renders[0], render.color.permute(2, 0, 1)
    assert torch.equal(shown[:, dense], image[:, dense])
    assert torch.equal(
        shown[:, ~dense], image[:, ~dense] if unknown == "render" else torch.zeros_like(image[:, ~dense])
    )
    assert result.notes["known_share"] == pytest.approx(float(dense.float().mean()), abs=0.01)


@pytest.mark.parametrize("value", [True, False])
def test_masks_all_white_and_all_black(value: bool) -> None:
    stub = Stub(lambda call: (call.renders + 0.2).clamp(0, 1))
    asked = with_masks(request(2), torch.full((72, 96), value))
    results = refiner(stub).refine(asked)
    assert all(call.masks.all() if value else not call.masks.any() for call in stub.calls)
    for result, render in zip(results, asked.renders, strict=True):
        assert result.failure is None and result.notes["known_share"] == float(value)
        assert ("mask" in result.notes) is not value, "that nothing is known is said"
        # With nothing known there is nothing to match colours with.
        expected = render.color if value else (render.color + 0.2).clamp(0, 1)
        torch.testing.assert_close(result.image.mean(), expected.mean(), atol=0.02, rtol=0)


def test_nan_fails_its_view_and_no_other() -> None:
    def paint(call: Call) -> Tensor:
        images = call.renders.clone()
        if len(stub.calls) == 3:
            images[1, 0, 5, 5] = torch.nan
        return images

    stub = Stub(paint)
    asked = request()
    results = refiner(stub).refine(asked)
    assert [result.failure is None for result in results] == [True, False, True]
    assert "NaN" in str(results[1].failure) and not results[1].weight.any() and not results[1].real.any()
    torch.testing.assert_close(results[1].image, asked.renders[1].color)
    assert all(result.image.isfinite().all() for result in results)


def test_a_render_with_nan_is_shown_without() -> None:
    asked = request(1)
    color = asked.renders[0].color.clone()
    color[3, 3] = torch.nan
    asked = dataclasses.replace(asked, renders=[dataclasses.replace(asked.renders[0], color=color)])
    stub = Stub()
    result = refiner(stub).refine(asked)[0]
    assert result.failure is None and result.image.isfinite().all()
    assert all(call.renders.isfinite().all() for call in stub.calls)


def test_no_references_is_an_error_and_no_views_are_none() -> None:
    stub = Stub()
    with pytest.raises(RefinerError, match="at least one reference"):
        refiner(stub).refine(request(2, 0))
    assert refiner(stub).refine(request(0)) == [] and not stub.loaded


def test_neighbours_are_references_after_the_anchors() -> None:
    stub = Stub()
    asked = request(1, 2)
    neighbour = GuideImage("t0_update_09", *_picture(9), is_real=False)
    alone = dataclasses.replace(asked, anchors=(), neighbours=[neighbour])
    refiner(stub).refine(dataclasses.replace(asked, neighbours=[neighbour]))
    assert [len(call.references) for call in stub.calls] == [3] * 4
    before = stub.calls[0].references
    refiner(stub).refine(alone)
    assert torch.equal(stub.calls[4].references[0], before[2])


def _picture(index: int) -> tuple[View, Tensor]:
    view, render = close(index)
    return view, render.color


def test_the_single_network_is_for_one_reference() -> None:
    stub = Stub()
    one = refiner(stub)
    for references in (1, 1, 2, 3, 1):
        one.refine(request(1, references))
    assert stub.loaded == ["single", "sparse", "single"], "kept while it is the right one"
    one.close()
    assert one.refine(request(1, 1))[0].failure is None and stub.loaded[-1] == "single" and len(stub.loaded) == 4
    stub = Stub()
    refiner(stub, unet="sparse").refine(request(1, 1))
    refiner(stub, unet="single").refine(request(1, 3))
    assert stub.loaded == ["sparse", "single"]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(2, 9))
def test_no_pass_has_more_frames_than_asked_for(targets: int, references: int, frames: int) -> None:
    stub = Stub()
    asked = request(targets, references)
    results = refiner(stub, frames=frames, size=128).refine(asked)
    assert all(len(call.references) + len(call.renders) <= frames for call in stub.calls)
    assert all(len(call.references) >= 1 for call in stub.calls)
    assert sum(len(call.renders) for call in stub.calls) == targets
    if targets + references <= frames:
        assert len(stub.calls) == 1 and len(stub.calls[0].references) == references
    for result, render in zip(results, asked.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)


def test_where_frames_are_few_the_references_that_show_the_views_are_kept() -> None:
    away = camera(9.0, 0, 0, 160, 120)
    blind = GuideImage("blind", away, torch.zeros(120, 160, 3), True)
    stub = Stub()
    asked = request(1, 2)
    refiner(stub, frames=3).refine(dataclasses.replace(asked, anchors=[blind, *asked.anchors]))
    assert all(len(call.references) == 2 and call.references.flatten(1).any(1).all() for call in stub.calls)
    many = Stub()
    refiner(many, frames=9, size=128).refine(request(9, 5))
    assert [(len(call.references), len(call.renders)) for call in many.calls] == [(3, 5), (3, 4)]


def test_out_of_memory_halves_the_views_of_a_pass_and_says_so() -> None:
    stub, output = Stub(most=4), io.StringIO()
    asked = request(9, 2)
    one = refiner(stub, output, frames=18, size=128)
    results = one.refine(asked)
    assert [len(call.renders) for call in stub.calls] == [9, 5, 3, 2, 2, 2, 2, 1]
    assert all(result.failure is None for result in results)
    for result, render in zip(results, asked.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
    lines = output.getvalue().splitlines()
    assert len(lines) == 3 and "11 pictures in one pass do not fit" in lines[0]
    assert "at most 5 of the views" in lines[0]
    stub.calls.clear()
    one.refine(request(3, 2))
    assert [len(call.renders) for call in stub.calls] == [2, 1], "what did not fit is not tried again"
    assert output.getvalue().splitlines() == lines


def test_out_of_memory_with_one_view_takes_fewer_references() -> None:
    stub, output = Stub(most=2), io.StringIO()
    results = refiner(stub, output, size=128).refine(request(2, 4))
    sizes = [(len(call.renders), len(call.references)) for call in stub.calls]
    assert sizes == [(2, 4), (1, 4), (1, 2), (1, 1), (1, 1)] and all(result.failure is None for result in results)
    assert "at most 1 of the references" in output.getvalue().splitlines()[-1]


ERRORS = [
    lambda: torch.cuda.OutOfMemoryError("CUDA out of memory"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    lambda: RefinerOutOfMemory("too large"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_what_does_not_fit_at_all_fails_by_view(error: Callable[[], Exception]) -> None:
    stub = Stub(most=1, error=error)
    asked = request(2, 1)
    results = refiner(stub, size=128).refine(asked)
    for result, render in zip(results, asked.renders, strict=True):
        assert "does not fit into the memory" in str(result.failure) and not result.weight.any()
        torch.testing.assert_close(result.image, render.color)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    stub = Stub(most=1, error=lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        refiner(stub).refine(request())


def test_a_network_that_does_not_fit_says_what_to_do() -> None:
    def load(*_: object) -> Stub:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    one = See3DRefiner(See3DRefinerConfig(weights="tiny"), CPU, load)
    with pytest.raises(RefinerOutOfMemory, match="cpu_offload"):
        one.refine(request())


@pytest.mark.parametrize(
    "options", [{"frames": 1}, {"size": 0}, {"size": 100}, {"feather": 64}, {"feather": -1}, {"frames": 0}]
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(RefinerError, match=next(iter(options))):
        refiner(Stub(), **options)
    config = dataclasses.replace(See3DRefinerConfig(weights="tiny", size=64, feather=16), **options)
    assert next(iter(options)) in str(config.why_not(CPU)), "said before the base training, too"


def noisy(call: Call) -> Tensor:
    return (call.renders + 0.1 * call.noise[len(call.references) :, None, None, None]).clamp(0, 1)


def test_noise_comes_from_the_seed_and_the_names() -> None:
    first, second, third = Stub(), Stub(), Stub()
    refiner(first).refine(request(3))
    refiner(second).refine(request(3))
    refiner(third).refine(request(3, seed=8))
    for one, other, fresh in zip(first.calls, second.calls, third.calls, strict=True):
        assert torch.equal(one.noise, other.noise) and torch.equal(one.latents, other.latents)
        assert not torch.equal(one.latents, fresh.latents) and (one.noise != fresh.noise).all()
    numbers = torch.cat([call.noise for call in first.calls])
    assert len(numbers.unique()) == len(numbers), "no picture and no tile shares its noise with another"
    assert len(torch.cat([call.latents for call in first.calls])[:, 0, 0, 0].unique()) == 12


def test_a_views_noise_does_not_depend_on_its_company() -> None:
    together, few, alone = Stub(noisy), Stub(noisy), Stub(noisy, most=3)
    asked = request(4, 2)
    expected = refiner(together).refine(asked)
    for results in (refiner(few, frames=4).refine(asked), refiner(alone).refine(asked)):
        for one, other in zip(results, expected, strict=True):
            assert torch.equal(one.image, other.image)


def test_tiles_of_a_view_start_from_one_field_of_noise() -> None:
    stub = Stub()
    refiner(stub).refine(request(1))
    left, right, below = (stub.calls[index].latents[0] for index in (0, 1, 2))
    assert left.shape == (4, 8, 8)
    assert torch.equal(left[:, :, 4:], right[:, :, :4]), "tiles begin at 0 and 32 pixels"
    assert torch.equal(left[:, 1:], below[:, :-1]), "and at 0 and 8"
    values = torch.cat([left.flatten(), right[:, :, 4:].flatten()])
    assert values.mean().abs() < 0.2 and (values.std() - 1).abs() < 0.2


def test_results_have_the_renders_type() -> None:
    asked = request(1)
    half = dataclasses.replace(asked.renders[0], color=asked.renders[0].color.half())
    result = refiner(Stub()).refine(dataclasses.replace(asked, renders=[half]))[0]
    assert result.image.dtype == torch.float16
    torch.testing.assert_close(result.image, half.color, atol=1e-3, rtol=0)


def test_nothing_is_printed_in_a_pipe() -> None:
    output = io.StringIO()
    refiner(Stub(), output).refine(request())
    assert output.getvalue() == ""


def test_a_terminal_shows_how_far_it_is() -> None:
    output, stub = io.StringIO(), Stub()
    config = See3DRefinerConfig(weights="tiny", size=64, feather=16, steps=4)
    one = See3DRefiner(config, CPU, stub.load, Console(file=output, force_terminal=True, width=120))
    one.refine(request(1))
    assert "See3D" in output.getvalue() and "16/16" in output.getvalue()


@pytest.fixture(scope="module")
def tiny() -> Iterator[See3DRefiner]:
    """Small random towers in the published layout, through the real loading and sampling."""
    config = See3DRefinerConfig(weights="tiny", size=64, feather=16, steps=2)
    one = See3DRefiner(config, CPU, console=Console(file=io.StringIO()))
    yield one
    one.close()


def test_tiny_weights_refine_any_size_deterministically(tiny: See3DRefiner) -> None:
    asked = request(2)
    asked = with_masks(asked, torch.arange(96).expand(72, 96) < 80)
    first = tiny.refine(asked)
    again = tiny.refine(asked)
    other = tiny.refine(dataclasses.replace(asked, seed=8))
    for result, same, fresh, render in zip(first, again, other, asked.renders, strict=True):
        assert result.failure is None and result.image.shape == render.color.shape and not result.real.any()
        assert torch.equal(result.image, same.image) and not torch.equal(result.image, fresh.image)
        assert float(result.image.min()) >= 0 and float(result.image.max()) <= 1
        assert result.notes["weights"] == "tiny random" and result.notes["evaluations"] == 4 * 3
        # Whatever random towers invent, the colours are the render's.
        inner = (result.image - render.color)[:, :64].mean((0, 1))
        assert inner.abs().max() < 0.02 < float((result.image - render.color).abs().max())


def test_tiny_weights_load_again_after_they_were_freed(tiny: See3DRefiner) -> None:
    asked = request(1, 1)
    before = tiny.refine(asked)[0]
    tiny.close()
    assert torch.equal(tiny.refine(asked)[0].image, before.image)
    assert before.notes["network"] == "single"


def test_weights_that_are_not_there_are_an_error_at_the_first_use(tmp_path: Path) -> None:
    one = See3DRefiner(See3DRefinerConfig(weights=str(tmp_path / "nothing")), CPU)
    with pytest.raises(RefinerError, match="nothing"):
        one.refine(request())
