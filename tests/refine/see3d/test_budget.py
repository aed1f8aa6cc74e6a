"""The computed budget against torch's own allocator, closed forms, and the aim."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from closeup_ns.refine.see3d.attention import join_frames
from closeup_ns.refine.see3d.budget import (
    FULL_SIZE,
    GIB,
    Budget,
    JointPass,
    LiveBytes,
    Towers,
    compute_budget,
    full_size_towers,
)
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from tests.refine.see3d.towers import CONTEXT, masks, pictures, seeded, tiny_unet, tiny_vae

FRAMES = 3
SIZE = (128, 128)


def ask(unet: nn.Module) -> Tensor:
    context = torch.zeros((1, 7, CONTEXT)).expand(2 * FRAMES, -1, -1)
    told = {"cross_attention_kwargs": {"num_frames": FRAMES}, "return_dict": False}
    with torch.no_grad():
        return unet(torch.zeros((2 * FRAMES, 9, 32, 16)), 500, context, **told)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_live_bytes_are_those_of_torchs_allocator() -> None:
    """Every allocation and release of a pass through a real network, as the profiler saw them, to the byte."""
    unet = tiny_unet()
    join_frames(unet)
    ask(unet)  # whatever is made once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        ask(unet)
    now = most = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    with LiveBytes(unet.parameters()) as live:
        ask(unet)
    assert most > 1e6 and live.most == most and live.now == 0


def test_tensors_without_content_live_as_long_as_real_ones() -> None:
    unet = tiny_unet()
    join_frames(unet)
    with LiveBytes(unet.parameters()) as real:
        ask(unet)
    sizes = {name: tuple(value.shape) for name, value in unet.state_dict().items()}
    with FakeTensorMode():
        unet.load_state_dict({name: torch.empty(size) for name, size in sizes.items()}, assign=True)
        with LiveBytes(unet.parameters()) as empty:
            ask(unet)
    assert empty.most == real.most


def test_views_and_tensors_from_before_are_not_counted() -> None:
    before = torch.zeros(1000)
    with LiveBytes([before]) as live:
        before.view(10, 100).t().add_(1)
        assert live.most == 0
        first = before + 1
        first[3:].mul_(2)
        assert (live.now, live.most) == (4000, 4000)
        second = first.double()
        assert live.now == 12000
        del first
        assert live.now == 8000
        third = second[:10]
        del second
        assert live.now == 8000  # its view holds it
        del third
    assert (live.now, live.most) == (0, 12000)


@pytest.fixture(scope="module")
def towers() -> Towers:
    """Of tests' sizes, without content."""
    with torch.device("meta"):
        unet, vae = copy.deepcopy(tiny_unet()).to("meta"), copy.deepcopy(tiny_vae()).to("meta")
        return Towers(unet, vae, nn.Linear(3, 5), nn.Linear(2, 7))  # type: ignore[arg-type]


def tiny_budget(towers: Towers, **asked: object) -> Budget:
    chosen = dataclasses.replace(JointPass(4, 64, 64, torch.float32), **asked)  # type: ignore[arg-type]
    return compute_budget(chosen, copy.deepcopy(towers))


def test_the_denoising_grows_with_the_frames_and_the_rest_does_not(towers: Towers) -> None:
    few, many = tiny_budget(towers), tiny_budget(towers, frames=8)
    assert many.denoising == pytest.approx(2 * few.denoising, rel=0.02)
    assert (many.encoding, many.decoding, many.weights) == (few.encoding, few.decoding, few.weights)


def test_one_branch_at_a_time_holds_half_and_costs_the_same(towers: Towers) -> None:
    together, apart = tiny_budget(towers), tiny_budget(towers, batched_guidance=False)
    assert apart.denoising == pytest.approx(together.denoising / 2, rel=0.15)  # latents are there in any case
    assert apart.step_flops == together.step_flops


def test_weights_are_counted_in_their_precision(towers: Towers) -> None:
    full, half = tiny_budget(towers), tiny_budget(towers, dtype=torch.bfloat16)
    assert full.weights["unet"] == 4 * sum(parameter.numel() for parameter in tiny_unet().parameters())
    assert half.weights["unet"] == full.weights["unet"] / 2
    assert (full.weights["text_encoder"], half.weights["text_encoder"]) == (4 * 20, 2 * 20)
    assert full.weights["image_encoder"] == half.weights["image_encoder"] == 4 * 21


def test_the_peak_is_that_of_the_costliest_part() -> None:
    weights = {"unet": 100, "vae": 10, "text_encoder": 30, "image_encoder": 150}
    budget = Budget(weights, encoding=1, denoising=20, decoding=5)
    assert budget.peak() == 290 + 20
    assert budget.peak(offloaded=True) == 10 + 150  # CLIP's own moment
    assert dataclasses.replace(budget, denoising=60).peak(offloaded=True) == 10 + 100 + 60
    assert dataclasses.replace(budget, decoding=400).peak(offloaded=True) == 10 + 400


@pytest.mark.parametrize("batched", [True, False])
def test_a_whole_pass_of_the_pipeline_takes_what_was_computed(batched: bool) -> None:
    """From encoding to decoding, with real tensors; what the budget leaves out are latents of a step that is over.

    At 128 pixels, for at 64 CLIP's preprocessing, which is the CPU's, takes more than all of the tiny network.
    """
    pipeline = See3DPipeline.from_pretrained("tiny")
    pipeline.set_progress_bar_config(disable=True)
    references, renders, known = pictures(2, 0, SIZE), pictures(3, 1, SIZE), masks(3, 2, SIZE)
    names = ("unet", "vae", "text_encoder", "image_encoder")
    weights = [parameter for name in names for parameter in getattr(pipeline, name).parameters()]
    with LiveBytes([*weights, references, renders, known]) as live:
        pipeline(references, renders, known, generator=seeded(), steps=1, batched_guidance=batched)
    towers = Towers(*(getattr(pipeline, name).to("meta") for name in names))
    budget = compute_budget(JointPass(5, *SIZE, torch.float32, batched), towers)
    assert live.most == pytest.approx(max(budget.encoding, budget.denoising, budget.decoding), rel=0.03)


@pytest.mark.parametrize("changes", [{"frames": 1}, {"height": 500}, {"width": 96}])
def test_a_pass_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 64"):
        compute_budget(dataclasses.replace(JointPass(), **changes))


def test_the_published_sizes() -> None:
    """The dossier's counts of parameters (1.3)."""
    counts = {
        name: sum(parameter.numel() for parameter in tower.parameters()) / 1e6
        for name, tower in full_size_towers().items()
    }
    assert counts == pytest.approx({"unet": 865.9, "vae": 83.7, "text_encoder": 340.4, "image_encoder": 632.1}, abs=0.1)
    assert FULL_SIZE.in_channels == 9


def test_eighteen_frames_at_512_pixels_stay_below_the_aim_as_computed() -> None:
    """Issue 5.3: below 12 GB. The operations are held to the dossier's (3.5), counted there in another way."""
    budget = compute_budget(JointPass())
    assert budget.peak() < 12e9
    assert budget.peak(offloaded=True) < 6e9
    pixels = 64 * 64
    attention = 0
    for width, shrink, layers in ((320, 1, 5), (640, 4, 5), (1280, 16, 5), (1280, 64, 1)):
        tokens = 18 * pixels // shrink
        attention += layers * 2 * 4 * width * (tokens**2 + tokens * 77)
    assert attention < budget.step_flops < 1.5 * attention
    assert compute_budget(JointPass(14)).step_flops == pytest.approx(67e12, rel=0.01)
    assert budget.denoising < 2.6 * GIB
