"""What the network is shown, row by row and channel by channel, and what is made of its answers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from closeup_ns.refine.see3d.sampling import SceneLatents, denoise, drawn
from closeup_ns.refine.see3d.schedule import make_scheduler, timesteps, visual_weight
from closeup_ns.refine.see3d.stage import BASE
from tests.refine.see3d.towers import CONTEXT, SCHEDULER, seeded, zero_snr_alphas

REFERENCES, TARGETS, STEPS = 2, 3, 6
FRAMES = REFERENCES + TARGETS


class Spy:
    """Stands for the network: keeps its inputs, answers with a shrunk copy of them that tells the branches apart."""

    dtype = torch.float32

    def __init__(self) -> None:
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


def test_every_channel_of_every_row_of_both_branches() -> None:
    """The table of the module, at each step; V_t from the same noise and alphas in float64."""
    spy, told = Spy(), scene()
    begin = torch.randn((TARGETS, 4, 8, 8), generator=seeded(9))
    own = [seeded(seed) for seed in range(TARGETS)]
    denoise(spy, make_scheduler(SCHEDULER), told, begin, BASE, STEPS, own, lambda done, total: None)  # type: ignore
    generators, alphas = [seeded(seed) for seed in range(TARGETS)], zero_snr_alphas()
    assert torch.equal(spy.rows[0][REFERENCES:FRAMES, :4], begin)
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
        fresh = torch.stack([torch.randn((4, 8, 8), generator=each) for each in generators]).double()
        alpha, weight = alphas[timestep // 5], visual_weight(timestep)
        noised = alpha**0.5 * told.warped.double() + (1 - alpha) ** 0.5 * fresh
        expected = weight * noised + (1 - weight) * latents.double()
        torch.testing.assert_close(conditional[REFERENCES:, 4:8].double(), expected, rtol=1e-4, atol=1e-5)


def test_each_picture_has_noise_of_its_own_in_the_type_and_place_of_the_latents() -> None:
    """A CPU generator serves a network on any device: here one without content, which could draw nothing itself."""
    noise = drawn([seeded(4), seeded(2)], torch.zeros(2, 3, dtype=torch.float64))
    assert noise.dtype == torch.float64
    for row, seed in zip(noise, (4, 2), strict=True):
        assert torch.equal(row.float(), torch.randn(3, generator=seeded(seed)))
    assert drawn([seeded(4)], torch.zeros(1, 3, device="meta")).device.type == "meta"
