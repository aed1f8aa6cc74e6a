"""The refiner around any model: stubs that tint, fail and fill the memory; then tiny random weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.refine.see3d.stage import SR
from tests.refine.scene import request_of
from tests.refine.see3d.stub_model import Call, Stub, close, guides, make_request, one_view, refiner


def test_a_model_that_changes_nothing_gives_the_renders_back() -> None:
    stub = Stub()
    request = make_request()
    results = refiner(stub).refine(request)
    for result, render in zip(results, request.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
        assert result.failure is None and not result.real.any() and (result.weight == 1).all()
        assert result.image.dtype == render.color.dtype
        assert result.notes == {"tiles": 4, "frames": 5, "dtype": "fp32", "network": "sparse", "known_share": 1.0}
    assert stub.loaded == ["sparse"] and len(stub.calls) == 4
    assert all(call.renders.shape == (3, 3, 64, 64) and call.references.shape == (2, 3, 64, 64) for call in stub.calls)
    assert stub.calls[0].steps == 4


@settings(max_examples=15, deadline=None)
@given(st.integers(64, 150), st.integers(64, 150), st.integers(0, 9999))
def test_views_of_any_size_come_back_at_their_size(width: int, height: int, seed: int) -> None:
    color = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    stub = Stub()
    (result,) = refiner(stub).refine(one_view(color))
    torch.testing.assert_close(result.image, color, atol=1e-5, rtol=0)
    assert all(call.renders.shape[2:] == (64, 64) for call in stub.calls)


@pytest.mark.parametrize(("width", "height", "tiles"), [(20, 20, 1), (40, 30, 2), (63, 64, 2), (9, 90, 13)])
def test_smaller_views_are_enlarged_to_the_networks_square_and_come_back(width: int, height: int, tiles: int) -> None:
    """At least 64 pixels each way, in squares of 64; a smooth picture survives the way there and back."""
    rows, columns = (torch.linspace(0.2, 0.8, side) for side in (height, width))
    color = torch.stack(torch.broadcast_tensors(rows[:, None], columns, torch.tensor(0.5)), dim=2).contiguous()
    stub = Stub()
    (result,) = refiner(stub).refine(one_view(color, references=2))
    assert result.image.shape == color.shape and result.weight.shape == (height, width)
    torch.testing.assert_close(result.image, color, atol=0.03, rtol=0)
    assert all(call.renders.shape == (1, 3, 64, 64) and call.references.shape == (2, 3, 64, 64) for call in stub.calls)
    assert len(stub.calls) == result.notes["tiles"] == tiles


def test_an_enlarged_view_keeps_its_mask_and_its_surface() -> None:
    """Half of it is known; the references are cut around the same surface as for the view at its own size."""
    small, large = Stub(), Stub()
    for stub, side in ((small, 32), (large, 64)):
        refiner(stub).refine(
            make_request(1, size=(side, side), dense=torch.arange(side).expand(side, side) < side // 2)
        )
    one, other = small.calls[0], large.calls[0]
    assert torch.equal(one.masks, other.masks) and one.masks.float().mean() == 0.5
    assert (one.renders - other.renders).abs().mean() < 0.03
    assert (one.references - other.references).abs().mean() < 0.03


def test_the_sr_stage_gets_the_real_masks_whole_pictures_and_windows_of_the_references() -> None:
    stub = Stub()
    dense = torch.arange(64).expand(64, 64) < 32
    request = make_request(1, size=(64, 64), dense=dense)
    one = refiner(stub, stage=dataclasses.replace(SR, side=64, overlap=16), unknown="black", frames=18)
    assert (one.name, one.frames) == ("see3d-sr", 8)
    one.refine(request)
    base = Stub()
    refiner(base).refine(request)
    assert stub.loaded == ["SR"] and torch.equal(stub.calls[0].masks[0], dense)
    assert torch.equal(stub.calls[0].renders[0], request.renders[0].color.permute(2, 0, 1)), (
        "unknown pixels are not black"
    )
    assert torch.equal(stub.calls[0].references, base.calls[0].references)


def test_views_of_several_sizes_are_refined_with_those_of_their_size() -> None:
    renders = [render for _, render in (close(0), close(1, 70, 80), close(2), close(3, 70, 80))]
    stub = Stub()
    results = refiner(stub).refine(request_of(renders, anchors=guides(2)))
    assert [tuple(result.image.shape[:2]) for result in results] == [(72, 96), (80, 70), (72, 96), (80, 70)]
    for result, render in zip(results, renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
    assert [len(call.renders) for call in stub.calls] == [2] * 8


def test_a_cast_is_taken_back_and_detail_is_kept() -> None:
    detail = 0.05 * (-1.0) ** torch.arange(96)
    grey = torch.full((72, 96, 3), 0.5)

    def paint(call: Call) -> Tensor:
        cast = torch.tensor([0.15, -0.1, 0.05])[:, None, None] * (1 + len(stub.calls) % 2)
        return call.renders + cast + (detail[:64] if striped else 0.0)

    for striped in (False, True):
        stub = Stub(paint)
        image = refiner(stub).refine(one_view(grey, references=2))[0].image
        # The border, where stripes are cut, keeps some of them in its low frequencies.
        expected = 0.5 + (detail[:, None] if striped else 0.0)
        error = (image - expected).abs()
        assert float(error.max()) < (0.01 if striped else 1e-4), "each tile had its own cast; none leaves a seam"


def test_colours_are_taken_from_what_is_known_only() -> None:
    dense = torch.zeros(72, 96, dtype=torch.bool)
    dense[:, :40] = True
    truth = torch.full((72, 96, 3), 0.4)
    hole = truth.clone()
    hole[:, 40:] = 0.0
    (result,) = refiner(Stub(lambda call: torch.full_like(call.renders, 0.6))).refine(one_view(hole, dense))
    torch.testing.assert_close(result.image, truth, atol=1e-4, rtol=0)


def test_a_tile_in_which_nothing_is_known_follows_its_surroundings() -> None:
    color = torch.full((64, 200, 3), 0.4)
    dense = (torch.arange(200) < 30).expand(64, 200)

    def paint(call: Call) -> Tensor:
        return call.renders + 0.1 * (1 + len(stub.calls) % 3)

    stub = Stub(paint)
    torch.testing.assert_close(refiner(stub).refine(one_view(color, dense))[0].image, color, atol=1e-4, rtol=0)
    image = refiner(stub).refine(one_view(color, torch.zeros_like(dense)))[0].image
    torch.testing.assert_close(image, image[:1, :1].expand_as(image), atol=1e-4, rtol=0)


def test_generated_colours_are_never_called_real_and_weigh_nothing_before_the_void() -> None:
    dense = (torch.arange(96) < 48).repeat(72, 1)
    dense[3:20, 60] = True  # a thread is chance
    alpha = torch.linspace(0, 1, 72)[:, None].expand(72, 96).contiguous()
    request = request_of([dataclasses.replace(close(0)[1], alpha=alpha)], dense, anchors=guides(2))
    (result,) = refiner(Stub(lambda call: torch.rand_like(call.renders))).refine(request)
    assert not result.real.any()
    assert (result.weight[:, :47] == 1).all()
    torch.testing.assert_close(result.weight[:, 50:], (2 * alpha).clamp(0, 1)[:, 50:])


@pytest.mark.parametrize("unknown", ["render", "black"])
def test_the_model_is_told_what_is_known_by_whole_latent_pixels(unknown: str) -> None:
    dense = torch.ones(64, 64, dtype=torch.bool)
    dense[20:, 30:] = False
    dense[40, 5] = True
    stub = Stub()
    request = make_request(1, size=(64, 64), dense=dense)
    (result,) = refiner(stub, unknown=unknown).refine(request)
    mask = stub.calls[0].masks[0]
    assert mask[:16].all() and mask[:, :24].all() and not mask[16:, 24:].any()
    shown, image = stub.calls[0].renders[0], request.renders[0].color.permute(2, 0, 1)
    assert torch.equal(shown[:, dense], image[:, dense])
    assert torch.equal(
        shown[:, ~dense], image[:, ~dense] if unknown == "render" else torch.zeros_like(image[:, ~dense])
    )
    assert result.notes["known_share"] == pytest.approx(float(dense.float().mean()), abs=0.01)


@pytest.mark.parametrize("value", [True, False])
def test_masks_all_white_and_all_black(value: bool) -> None:
    stub = Stub(lambda call: (call.renders + 0.2).clamp(0, 1))
    request = make_request(2, dense=torch.full((72, 96), value))
    results = refiner(stub).refine(request)
    assert all(call.masks.all() if value else not call.masks.any() for call in stub.calls)
    for result, render in zip(results, request.renders, strict=True):
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
    request = make_request()
    results = refiner(stub).refine(request)
    assert [result.failure is None for result in results] == [True, False, True]
    assert "NaN" in str(results[1].failure) and not results[1].weight.any() and not results[1].real.any()
    torch.testing.assert_close(results[1].image, request.renders[1].color)
    assert all(result.image.isfinite().all() for result in results)


def test_a_render_with_nan_is_shown_without() -> None:
    color = torch.rand(72, 96, 3)
    color[3, 3] = torch.nan
    stub = Stub()
    (result,) = refiner(stub).refine(one_view(color))
    assert result.failure is None and result.image.isfinite().all()
    assert all(call.renders.isfinite().all() for call in stub.calls)


def test_no_references_is_an_error() -> None:
    with pytest.raises(RefinerError, match="at least one reference"):
        refiner(Stub()).refine(make_request(2, 0))


def test_neighbours_are_references_after_the_anchors() -> None:
    stub = Stub()
    request = make_request(1, 2)
    view, render = close(9)
    neighbour = GuideImage("t0_update_09", view, render.color, is_real=False)
    alone = dataclasses.replace(request, anchors=(), neighbours=[neighbour])
    refiner(stub).refine(dataclasses.replace(request, neighbours=[neighbour]))
    assert [len(call.references) for call in stub.calls] == [3] * 4
    before = stub.calls[0].references
    refiner(stub).refine(alone)
    assert torch.equal(stub.calls[4].references[0], before[2])


def test_the_single_network_is_for_one_reference() -> None:
    stub = Stub()
    one = refiner(stub)
    for references in (1, 1, 2, 3, 1):
        one.refine(make_request(1, references))
    assert stub.loaded == ["single", "sparse", "single"], "kept while it is the right one"
    one.close()
    assert one.refine(make_request(1, 1))[0].failure is None and stub.loaded[-1] == "single" and len(stub.loaded) == 4
