"""See3D's refiner at its limits: frames, memory, options, randomness, and the real loading path with tiny weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.refine.refiner import RefinerConfig, check_refiner
from closeup_ns.refine.see3d.refiner import See3DRefiner
from tests.refine.scene import camera
from tests.refine.see3d.stub_model import CPU, SMALL, Call, Stub, make_request, refiner


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(2, 9))
def test_no_pass_has_more_frames_than_asked_for(targets: int, references: int, frames: int) -> None:
    stub = Stub()
    request = make_request(targets, references, size=(64, 64))
    results = refiner(stub, frames=frames).refine(request)
    assert all(len(call.references) + len(call.renders) <= frames for call in stub.calls)
    assert all(len(call.references) >= 1 for call in stub.calls)
    assert sum(len(call.renders) for call in stub.calls) == targets
    if targets + references <= frames:
        assert len(stub.calls) == 1 and len(stub.calls[0].references) == references
    for result, render in zip(results, request.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)


def test_where_frames_are_few_the_references_that_show_the_views_are_kept() -> None:
    away = camera(9.0, 0, 0, 160, 120)
    blind = GuideImage("blind", away, torch.zeros(120, 160, 3), True)
    stub = Stub()
    request = make_request(1, 2)
    refiner(stub, frames=3).refine(dataclasses.replace(request, anchors=[blind, *request.anchors]))
    assert all(len(call.references) == 2 and call.references.flatten(1).any(1).all() for call in stub.calls)
    many = Stub()
    refiner(many, frames=9).refine(make_request(9, 5, size=(64, 64)))
    assert [(len(call.references), len(call.renders)) for call in many.calls] == [(3, 5), (3, 4)]


def test_out_of_memory_halves_the_views_of_a_pass_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(most=4)
    request = make_request(9, 2, size=(64, 64))
    one = refiner(stub, frames=18)
    results = one.refine(request)
    assert [len(call.renders) for call in stub.calls] == [9, 5, 3, 2, 2, 2, 2, 1]
    assert all(result.failure is None for result in results)
    for result, render in zip(results, request.renders, strict=True):
        torch.testing.assert_close(result.image, render.color, atol=1e-5, rtol=0)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "11 pictures in one pass do not fit" in lines[0]
    assert "at most 5 of the views" in lines[0]
    stub.calls.clear()
    one.refine(make_request(3, 2, size=(64, 64)))
    assert [len(call.renders) for call in stub.calls] == [2, 1], "what did not fit is not tried again"
    assert capsys.readouterr().out == ""


def test_out_of_memory_with_one_view_takes_fewer_references(capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(most=2)
    results = refiner(stub).refine(make_request(2, 4, size=(64, 64)))
    sizes = [(len(call.renders), len(call.references)) for call in stub.calls]
    assert sizes == [(2, 4), (1, 4), (1, 2), (1, 1), (1, 1)] and all(result.failure is None for result in results)
    assert "at most 1 of the references" in capsys.readouterr().out.splitlines()[-1]


ERRORS = [
    lambda: torch.cuda.OutOfMemoryError("CUDA out of memory"),
    lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    lambda: RefinerOutOfMemory("too large"),
    lambda: RuntimeError("GET was unable to find an engine to execute this computation"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_what_does_not_fit_at_all_fails_by_view(error: Callable[[], Exception]) -> None:
    stub = Stub(most=1, error=error)
    request = make_request(2, 1, size=(64, 64))
    results = refiner(stub).refine(request)
    for result, render in zip(results, request.renders, strict=True):
        assert "does not fit into the memory" in str(result.failure) and not result.weight.any()
        torch.testing.assert_close(result.image, render.color)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    stub = Stub(most=1, error=lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        refiner(stub).refine(make_request())


def test_a_network_that_does_not_fit_says_what_to_do() -> None:
    def load(*_: object) -> Stub:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    one = See3DRefiner(See3DRefinerConfig(), CPU, load=load)
    with pytest.raises(RefinerOutOfMemory, match="cpu_offload"):
        one.refine(make_request())


@pytest.mark.parametrize("options", [{"frames": 1}, {"frames": 0}, {"steps": 0}, {"steps": 1000}])
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(RefinerError, match=next(iter(options))):
        refiner(Stub(), **options)
    with pytest.raises(RefinerError, match=next(iter(options))):  # said before the base training, too
        check_refiner(RefinerConfig("see3d", See3DRefinerConfig(**options)), CPU)


def noisy(call: Call) -> Tensor:
    return (call.renders + 0.1 * call.noise[len(call.references) :, None, None, None]).clamp(0, 1)


def test_noise_comes_from_the_seed_and_the_names() -> None:
    first, second, third = Stub(), Stub(), Stub()
    refiner(first).refine(make_request(3))
    refiner(second).refine(make_request(3))
    refiner(third).refine(make_request(3, seed=8))
    for one, other, fresh in zip(first.calls, second.calls, third.calls, strict=True):
        assert torch.equal(one.noise, other.noise) and torch.equal(one.latents, other.latents)
        assert not torch.equal(one.latents, fresh.latents) and (one.noise != fresh.noise).all()
    numbers = torch.cat([call.noise for call in first.calls])
    assert len(numbers.unique()) == len(numbers), "no picture and no tile shares its noise with another"
    assert len(torch.cat([call.latents for call in first.calls])[:, 0, 0, 0].unique()) == 12


def test_a_views_noise_does_not_depend_on_its_company() -> None:
    together, few, alone = Stub(noisy), Stub(noisy), Stub(noisy, most=3)
    request = make_request(4, 2)
    expected = refiner(together).refine(request)
    for results in (refiner(few, frames=4).refine(request), refiner(alone).refine(request)):
        for one, other in zip(results, expected, strict=True):
            assert torch.equal(one.image, other.image)


def test_tiles_of_a_view_start_from_one_field_of_noise() -> None:
    stub = Stub()
    refiner(stub).refine(make_request(1))
    left, right, below = (stub.calls[index].latents[0] for index in (0, 1, 2))
    assert left.shape == (4, 8, 8)
    assert torch.equal(left[:, :, 4:], right[:, :, :4]), "tiles begin at 0 and 32 pixels"
    assert torch.equal(left[:, 1:], below[:, :-1]), "and at 0 and 8"
    values = torch.cat([left.flatten(), right[:, :, 4:].flatten()])
    assert values.mean().abs() < 0.2 and (values.std() - 1).abs() < 0.2


def test_results_have_the_renders_type() -> None:
    request = make_request(1)
    half = dataclasses.replace(request.renders[0], color=request.renders[0].color.half())
    result = refiner(Stub()).refine(dataclasses.replace(request, renders=[half]))[0]
    assert result.image.dtype == torch.float16
    torch.testing.assert_close(result.image, half.color, atol=1e-3, rtol=0)


def test_tiny_weights_refine_any_size_deterministically(tiny_weights: Path) -> None:
    """Small random towers in the published layout, through the real loading and sampling."""
    config = See3DRefinerConfig(weights=str(tiny_weights), steps=2, unknown="render")
    tiny = See3DRefiner(config, CPU, SMALL)
    request = make_request(2, 1, dense=torch.arange(96).expand(72, 96) < 80)
    first = tiny.refine(request)
    tiny.close()
    second = tiny.refine(request)
    other = tiny.refine(dataclasses.replace(request, seed=8))
    for result, same, fresh, render in zip(first, second, other, request.renders, strict=True):
        assert result.failure is None and result.image.shape == render.color.shape and not result.real.any()
        assert torch.equal(result.image, same.image) and not torch.equal(result.image, fresh.image)
        assert float(result.image.min()) >= 0 and float(result.image.max()) <= 1
        assert result.notes["tiles"] == 4 and result.notes["network"] == "single"
        # Whatever random towers invent, the colours are the render's.
        inner = (result.image - render.color)[:, :64].mean((0, 1))
        assert inner.abs().max() < 0.02 < float((result.image - render.color).abs().max())
