"""What the network is shown, row by row and channel by channel, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.refine.see3d.sampling import (
    PictureNoise,
    SamplingOptions,
    SceneLatents,
    denoise,
    network_input,
    predict,
    visual_condition,
)
from closeup_ns.refine.see3d.schedule import make_scheduler, timesteps, visual_weight
from tests.refine.see3d.towers import CONTEXT, SCHEDULER, seeded, zero_snr_alphas

REFERENCES, TARGETS, STEPS = 2, 3, 6
FRAMES = REFERENCES + TARGETS


class Spy:
    """Stands for the network: keeps its inputs, answers with a shrunk copy of them that tells the branches apart."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.rows: list[Tensor] = []
        self.told: list[tuple[int, Tensor, int]] = []

    def __call__(self, rows: Tensor, timestep: int, **told: Any) -> tuple[Tensor]:
        assert rows.dtype == told["encoder_hidden_states"].dtype == self.dtype
        self.rows.append(rows.clone())
        self.told.append((timestep, told["encoder_hidden_states"], told["cross_attention_kwargs"]["num_frames"]))
        return (0.3 * rows[:, :4] + 0.2 * rows[:, 4:8] + rows[:, 8:],)


def scene(seed: int = 0) -> SceneLatents:
    generator = seeded(seed)
    pictures = torch.randn((FRAMES, 4, 8, 8), generator=generator)
    masks = (torch.rand((TARGETS, 1, 8, 8), generator=generator) < 0.5).float()
    context = torch.randn((1, 7, CONTEXT), generator=generator)
    return SceneLatents(pictures[:REFERENCES], pictures[REFERENCES:], masks, context)


def start() -> Tensor:
    return torch.randn((TARGETS, 4, 8, 8), generator=seeded(9))


def noise(generators: Sequence[torch.Generator] | None = None) -> PictureNoise:
    return PictureNoise(generators or [seeded(1)] * FRAMES, torch.device("cpu"), torch.float32)


def options(guidance: float = 2.0, mixes_noise: bool = True) -> SamplingOptions:
    return SamplingOptions(timesteps(STEPS), STEPS, guidance, mixes_noise)


def run(unet: Any, chosen: SamplingOptions, told: SceneLatents | None = None, **parts: Any) -> Tensor:
    latents, drawn = parts.get("latents", start()), parts.get("noise", noise())
    silent = parts.get("progress", lambda done, total: None)
    return denoise(unet, make_scheduler(SCHEDULER), told or scene(), latents, chosen, drawn, silent)


def test_every_channel_of_every_row_of_both_branches() -> None:
    """The table of the module, at each step; V_t from the same noise and alphas in float64."""
    spy, told = Spy(), scene()
    run(spy, options())
    generator, alphas = seeded(1), zero_snr_alphas()
    assert [timestep for timestep, _, _ in spy.told] == [step for step in timesteps(STEPS) for _ in range(2)]
    for conditional, unconditional, (timestep, context, frames) in zip(spy.rows[::2], spy.rows[1::2], spy.told[::2]):
        assert conditional.shape == unconditional.shape == (FRAMES, 9, 8, 8) and frames == FRAMES
        assert torch.equal(context, told.context.expand(FRAMES, -1, -1))
        for branch in (conditional, unconditional):
            assert torch.equal(branch[:REFERENCES, :4], told.references)
            assert torch.equal(branch[:REFERENCES, 4:8], told.references)
            assert (branch[:REFERENCES, 8] == 1).all()
        latents = conditional[REFERENCES:, :4]
        assert torch.equal(unconditional[REFERENCES:, :4], latents)
        assert (unconditional[REFERENCES:, 4:] == 0).all()
        assert torch.equal(conditional[REFERENCES:, 8:], told.masks)
        fresh = torch.stack([torch.randn((4, 8, 8), generator=generator) for _ in range(TARGETS)]).double()
        alpha, weight = alphas[timestep // 5], visual_weight(timestep)
        noised = alpha**0.5 * told.warped.double() + (1 - alpha) ** 0.5 * fresh
        expected = weight * noised + (1 - weight) * latents.double()
        torch.testing.assert_close(conditional[REFERENCES:, 4:8].double(), expected, rtol=1e-4, atol=1e-5)


def test_the_first_step_starts_from_the_latents_that_are_given() -> None:
    spy = Spy()
    run(spy, options())
    assert torch.equal(spy.rows[0][REFERENCES:FRAMES, :4], start())


def test_the_super_resolution_stage_shows_the_clean_warp_and_draws_nothing() -> None:
    spy, generator = Spy(), seeded(1)
    before = generator.get_state()
    run(spy, options(mixes_noise=False), noise=noise([generator] * FRAMES))
    assert torch.equal(generator.get_state(), before)
    assert all(torch.equal(rows[REFERENCES:, 4:8], scene().warped) for rows in spy.rows[::2])
    assert all((rows[REFERENCES:, 4:] == 0).all() for rows in spy.rows[1::2])


@pytest.mark.parametrize("guidance", [2.0, 1.0, 0.5])
def test_guidance_is_one_plus_g_conditional_minus_g_unconditional(guidance: float) -> None:
    told, latents, visual = scene(), start(), torch.randn((TARGETS, 4, 8, 8), generator=seeded(3))
    conditional = 0.3 * latents + 0.2 * visual + told.masks
    expected = (1 + guidance) * conditional - guidance * 0.3 * latents
    result = predict(Spy(), told, latents, visual, 500, options(guidance))  # type: ignore[arg-type]
    torch.testing.assert_close(result, expected)


def test_without_guidance_one_branch_is_asked() -> None:
    spy = Spy()
    result = predict(spy, scene(), start(), scene().warped, 500, options(0.0))  # type: ignore[arg-type]
    assert [len(rows) for rows in spy.rows] == [FRAMES]
    torch.testing.assert_close(result, 0.3 * start() + 0.2 * scene().warped + scene().masks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_networks_alone(dtype: torch.dtype) -> None:
    spy = Spy(dtype)
    result = run(spy, options())
    assert result.dtype == torch.float32 and spy.rows[0].dtype == dtype
    assert (result - run(Spy(), options())).abs().max() < 0.1


def test_nan_is_passed_on() -> None:
    told = scene()
    told.warped[1, 0, 0, 0] = float("nan")
    result = run(Spy(), options(), told)
    assert result[1].isnan().any() and result[[0, 2]].isfinite().all()


def test_progress_is_told_after_each_step() -> None:
    seen: list[tuple[int, int]] = []
    run(Spy(), options(), progress=lambda done, total: seen.append((done, total)))
    count = len(timesteps(STEPS))
    assert seen == [(step + 1, count) for step in range(count)]


def test_the_noise_of_a_picture_is_its_place_in_its_generators_stream() -> None:
    drawn = noise().draw(range(2, 5), (4, 8, 8))
    generator = seeded(1)
    assert all(torch.equal(each, torch.randn((4, 8, 8), generator=generator)) for each in drawn)
    own = [seeded(seed) for seed in range(FRAMES)]
    apart = noise(own).draw([4, 2], (3,))
    assert torch.equal(apart[0], torch.randn(3, generator=seeded(4)))
    assert torch.equal(apart[1], torch.randn(3, generator=seeded(2)))
    half = PictureNoise([seeded(4)], torch.device("cpu"), torch.float64).draw([0], (3,))
    assert half.dtype == torch.float64 and torch.equal(half[0].float(), apart[0])


def test_noise_is_drawn_where_its_generator_lives_and_then_moved() -> None:
    """A CPU generator serves a network on any device: here one without content, which could draw nothing itself."""
    generator = seeded(1)
    moved = PictureNoise([generator], torch.device("meta"), torch.float32).draw([0], (4, 8, 8))
    assert moved.device.type == "meta"
    expected = seeded(1)
    torch.randn((4, 8, 8), generator=expected)
    assert torch.equal(generator.get_state(), expected.get_state())


def test_at_the_last_steps_the_condition_is_the_latent_itself() -> None:
    told = visual_condition(
        scene().warped, start(), noise().draw(range(TARGETS), (4, 8, 8)), 11, torch.tensor(zero_snr_alphas())
    )
    assert (told - start()).abs().max() < 0.05


def test_the_unconditional_branch_keeps_its_references() -> None:
    rows = network_input(scene(), start(), None)
    assert torch.equal(rows[:REFERENCES, :8], scene().references.repeat(1, 2, 1, 1))
