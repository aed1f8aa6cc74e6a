"""Whole passes with tiny towers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.sampling import drawn
from closeup_ns.refine.see3d.stage import BASE, SR, Stage
from tests.refine.see3d.conftest import Load
from tests.refine.see3d.tiny import seeded, zero_snr_alphas

REFERENCES, TARGETS = 2, 3
FRAMES = REFERENCES + TARGETS


def call(pipeline: See3DPipeline, **changes: Any) -> Tensor:
    shown: dict[str, Any] = {
        "references": pictures(REFERENCES, 0), "renders": pictures(TARGETS, 1), "masks": masks(TARGETS, 2), "steps": 2,
        "progress": lambda done, total: None, **changes,
    }  # fmt: skip
    count, (height, width) = len(shown["references"]) + len(shown["renders"]), shown["renders"].shape[2:]
    shown.setdefault("generators", [seeded(index) for index in range(count)])
    shown.setdefault("latents", start(len(shown["renders"]), height // 8, width // 8))
    return pipeline(**shown)


def start(count: int = TARGETS, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn((count, 4, height, width), generator=seeded(77))


def pictures(count: int, seed: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.rand((count, 3, *size), generator=seeded(seed))


def masks(count: int, seed: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.rand((count, *size), generator=seeded(seed)) < 0.6


def literal_context(pipeline: See3DPipeline, reference: Tensor) -> Tensor:
    """Start, end and, as Stable Diffusion 2 pads, entry 0; the towers and CLIP's preprocessing are stock."""
    text = pipeline.text_encoder(torch.tensor([[1, 2] + [0] * 75]))[0]
    pixels = pipeline.feature_extractor(images=reference, do_rescale=False, return_tensors="pt")["pixel_values"]
    embedding = pipeline.image_encoder(pixels).image_embeds
    return text + 0.2 * embedding


def literal_prediction(pipeline: See3DPipeline, rows: list[list[Tensor]], timestep: int, context: Tensor) -> Tensor:
    """One branch alone: the rows of its frames, each a list of latent, condition and mask."""
    batch = torch.stack([torch.cat(row) for row in rows])
    told = {"encoder_hidden_states": torch.cat([context] * FRAMES), "cross_attention_kwargs": {"num_frames": FRAMES}}
    return pipeline.unet(batch, timestep, **told).sample[REFERENCES:]


def literal_pass(pipeline: See3DPipeline, moments: list[int], stride: int, stage: Stage) -> Tensor:
    """The dossier's sampling (2.4 to 2.8), picture by picture in float64, for the arguments of ``call``."""
    generators, alphas = [seeded(index) for index in range(FRAMES)], zero_snr_alphas()

    def draw(picture: int) -> Tensor:
        return torch.randn((4, 8, 8), generator=generators[picture]).double()

    references, renders = pictures(REFERENCES, 0).double(), pictures(TARGETS, 1).double()
    known = masks(TARGETS, 2)[:, None, ::8, ::8].double()
    clean = []
    for index, picture in enumerate([*references, *renders]):
        posterior = pipeline.vae.encode(2 * picture[None] - 1).latent_dist
        clean.append(0.18215 * (posterior.mean[0] + posterior.std[0] * draw(index)))
    ones, zeros, nothing = torch.ones((1, 8, 8)).double(), torch.zeros((4, 8, 8)).double(), torch.zeros((1, 8, 8))
    context = literal_context(pipeline, references[0].float())
    x = list(start().double())
    for t in moments:
        level = t // 5
        weight = 1 - 0.2 * (200 - level) / 140 if level >= 60 else 0.8 * 2.718281828459045 ** (0.075 * (level - 60))
        shown = []
        for target in range(TARGETS):
            warp = clean[REFERENCES + target]
            if stage is BASE:
                noised = alphas[level] ** 0.5 * warp + (1 - alphas[level]) ** 0.5 * draw(REFERENCES + target)
                warp = weight * noised + (1 - weight) * x[target]
            shown.append(warp)
        fixed = [[z, z, ones] for z in clean[:REFERENCES]]
        conditional = fixed + [[x[i], shown[i], known[i]] for i in range(TARGETS)]
        unconditional = fixed + [[x[i], zeros, nothing.double()] for i in range(TARGETS)]
        with_warp = literal_prediction(pipeline, conditional, t, context)
        v = (1 + stage.guidance) * with_warp - stage.guidance * literal_prediction(pipeline, unconditional, t, context)
        now, then = alphas[t], alphas[t - stride] if t >= stride else alphas[0]
        for i in range(TARGETS):
            clean_latent = now**0.5 * x[i] - (1 - now) ** 0.5 * v[i]
            noise = now**0.5 * v[i] + (1 - now) ** 0.5 * x[i]
            x[i] = then**0.5 * clean_latent + (1 - then) ** 0.5 * noise
    decoded = torch.cat([pipeline.vae.decode(each[None] / 0.18215).sample for each in x])
    return ((decoded + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize(
    ("name", "stage", "moments", "stride"),
    [("single", BASE, [999, 750, 501, 252, 3], 250), ("SR", SR, [999, 666, 333], 333)],
)
@torch.no_grad()
def test_a_whole_pass_is_the_literal_loop(load: Load, name: str, stage: Stage, moments: list[int], stride: int) -> None:
    pipeline = load(name, torch.float64)
    told: list[tuple[int, int]] = []
    images = call(pipeline, steps=1000 // stride, progress=lambda done, total: told.append((done, total)))
    expected = literal_pass(pipeline, moments, stride, stage)
    assert told == [(index + 1, len(moments)) for index in range(len(moments))]
    assert expected.std() > 0.05
    torch.testing.assert_close(images, expected.float(), rtol=0, atol=2e-4)


@pytest.fixture(scope="module")
def images(pipeline: See3DPipeline) -> Tensor:
    """What ``call`` gives by default."""
    return call(pipeline)


def test_the_same_seed_gives_the_same_bits_and_another_one_others(pipeline: See3DPipeline, images: Tensor) -> None:
    torch.manual_seed(5)  # the global generator has no part in it
    before = torch.get_rng_state()
    assert torch.equal(call(pipeline), images) and torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(call(pipeline, generators=[seeded(1 + index) for index in range(FRAMES)]), images)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(load: Load, dtype: torch.dtype, images: Tensor) -> None:
    half = call(load(dtype=dtype))
    assert half.dtype == torch.float32 and half.isfinite().all()
    assert (half - images).abs().mean() < 0.05


def test_nan_is_not_hidden(load: Load) -> None:
    pipeline = load()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    assert call(pipeline, steps=1).isnan().any()


def test_offloaded_towers_go_home_after_an_error(pipeline: See3DPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: freed.append(True))

    def stop(done: int, total: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        call(pipeline, progress=stop)
    assert freed == [True]


def test_each_picture_has_noise_of_its_own_in_the_type_and_place_of_the_latents() -> None:
    """A CPU generator serves a network on any device: here one without content, which could draw nothing itself."""
    noise = drawn([seeded(4), seeded(2)], torch.zeros(2, 3, dtype=torch.float64))
    assert noise.dtype == torch.float64
    for row, seed in zip(noise, (4, 2), strict=True):
        assert torch.equal(row.float(), torch.randn(3, generator=seeded(seed)))
    assert drawn([seeded(4)], torch.zeros(1, 3, device="meta")).device.type == "meta"
