"""Whole passes with tiny towers, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.pipeline import See3DOutput, See3DPipeline
from closeup_ns.refine.see3d.stage import BASE, SR, Stage
from tests.refine.see3d.towers import (
    TinyExtractor,
    masks,
    pictures,
    seeded,
    tiny_pipeline,
    tiny_unet,
    tiny_vae,
    zero_snr_alphas,
)

REFERENCES, TARGETS = 2, 3
FRAMES = REFERENCES + TARGETS


def call(pipeline: See3DPipeline, **changes: Any) -> See3DOutput:
    told: dict[str, Any] = {
        "references": pictures(REFERENCES, 0), "renders": pictures(TARGETS, 1), "masks": masks(TARGETS, 2),
        "generator": seeded(), "steps": 4, **changes,
    }  # fmt: skip
    return pipeline(**told)


@pytest.fixture(scope="module")
def pipeline() -> See3DPipeline:
    return tiny_pipeline()


def literal_context(pipeline: See3DPipeline, reference: Tensor) -> Tensor:
    words = pipeline.text_encoder(torch.tensor([[1, 2, 2, 2, 2, 2, 2]]))[0]
    seen = pipeline.image_encoder(TinyExtractor()(reference, do_rescale=False)["pixel_values"]).image_embeds
    return words + 0.2 * seen


def literal_prediction(pipeline: See3DPipeline, rows: list[list[Tensor]], timestep: int, context: Tensor) -> Tensor:
    """One branch alone: the rows of its frames, each a list of latent, condition and mask."""
    batch = torch.stack([torch.cat(row) for row in rows])
    told = {"encoder_hidden_states": torch.cat([context] * FRAMES), "cross_attention_kwargs": {"num_frames": FRAMES}}
    return pipeline.unet(batch, timestep, **told).sample[REFERENCES:]


def literal_pass(pipeline: See3DPipeline, moments: list[int], stride: int, stage: Stage) -> Tensor:
    """The dossier's sampling (2.4 to 2.8), picture by picture in float64, for the arguments of ``call``."""
    generator, alphas = seeded(), zero_snr_alphas()

    def draw(shape: tuple[int, ...] = (4, 8, 8)) -> Tensor:
        return torch.randn(shape, generator=generator).double()

    references, renders = pictures(REFERENCES, 0).double(), pictures(TARGETS, 1).double()
    known = masks(TARGETS, 2)[:, None, ::8, ::8].double()
    clean = []
    for picture in [*references, *renders]:
        posterior = pipeline.vae.encode(2 * picture[None] - 1).latent_dist
        clean.append(0.18215 * (posterior.mean[0] + posterior.std[0] * draw()))
    ones, zeros, nothing = torch.ones((1, 8, 8)).double(), torch.zeros((4, 8, 8)).double(), torch.zeros((1, 8, 8))
    context = literal_context(pipeline, references[0].float())
    x = [draw() for _ in range(TARGETS)]
    for t in moments:
        level = t // 5
        weight = 1 - 0.2 * (200 - level) / 140 if level >= 60 else 0.8 * 2.718281828459045 ** (0.075 * (level - 60))
        shown = []
        for target in range(TARGETS):
            warp = clean[REFERENCES + target]
            if stage is BASE:
                noised = alphas[level] ** 0.5 * warp + (1 - alphas[level]) ** 0.5 * draw()
                warp = weight * noised + (1 - weight) * x[target]
            shown.append(warp)
        fixed = [[z, z, ones] for z in clean[:REFERENCES]]
        conditional = fixed + [[x[i], shown[i], known[i]] for i in range(TARGETS)]
        unconditional = fixed + [[x[i], zeros, nothing.double()] for i in range(TARGETS)]
        with_warp = literal_prediction(pipeline, conditional, t, context)
        v = (1 + stage.guidance) * with_warp - stage.guidance * literal_prediction(pipeline, unconditional, t, context)
        now, then = alphas[t], alphas[t - stride] if t >= stride else alphas[0]
        for i in range(TARGETS):
            start = now**0.5 * x[i] - (1 - now) ** 0.5 * v[i]
            noise = now**0.5 * v[i] + (1 - now) ** 0.5 * x[i]
            x[i] = then**0.5 * start + (1 - then) ** 0.5 * noise
    decoded = torch.cat([pipeline.vae.decode(each[None] / 0.18215).sample for each in x])
    return ((decoded + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize(
    ("stage", "moments", "stride"), [(BASE, [999, 750, 501, 252, 3], 250), (SR, [999, 666, 333], 333)]
)
@torch.no_grad()
def test_a_whole_pass_is_the_literal_loop(stage: Stage, moments: list[int], stride: int) -> None:
    pipeline = tiny_pipeline(stage, torch.float64)
    output = call(pipeline, steps=1000 // stride)
    expected = literal_pass(pipeline, moments, stride, stage)
    assert output.evaluations == len(moments)
    assert expected.std() > 0.05
    torch.testing.assert_close(output.images, expected.float(), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("stage", "evaluations"), [(BASE, 53), (SR, 31)])
def test_the_published_schedule_is_the_default(stage: Stage, evaluations: int) -> None:
    pipeline = tiny_pipeline(stage)
    asked: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda module, told: asked.append(told[1]))
    seen: list[tuple[int, int]] = []
    output = call(
        pipeline, references=pictures(1, 0), renders=pictures(1, 1), masks=masks(1, 2), steps=None,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert output.evaluations == len(asked) / 2 == evaluations == len(seen)
    assert seen[-1] == (evaluations, evaluations)


def test_references_come_back_untouched(pipeline: See3DPipeline) -> None:
    """At each step their rows are the very latents that the VAE gave, in both branches."""
    seen: list[Tensor] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, told: seen.append(told[0].clone()))
    call(pipeline)
    hook.remove()
    generator = seeded()
    with torch.no_grad():
        for index, picture in enumerate(pictures(REFERENCES, 0)):
            posterior = pipeline.vae.encode(2 * picture[None] - 1).latent_dist
            clean = (posterior.mean + posterior.std * torch.randn((1, 4, 8, 8), generator=generator)) * 0.18215
            for rows in seen:
                row = rows[index]
                assert torch.equal(row[:4], row[4:8]) and (row[8] == 1).all()
                torch.testing.assert_close(row[None, :4], clean)
                assert torch.equal(row, seen[0][index])


def test_permuting_targets_with_their_noise_permutes_the_images(pipeline: See3DPipeline) -> None:
    order = [2, 0, 1]
    seeds = [*range(REFERENCES), *(REFERENCES + target for target in range(TARGETS))]
    permuted = [*range(REFERENCES), *(REFERENCES + target for target in order)]
    first = call(pipeline, generator=[seeded(seed) for seed in seeds]).images
    second = call(
        pipeline, generator=[seeded(seed) for seed in permuted], renders=pictures(TARGETS, 1)[order],
        masks=masks(TARGETS, 2)[order],
    ).images  # fmt: skip
    torch.testing.assert_close(second, first[order], rtol=0, atol=1e-4)
    assert (second - first).abs().max() > 0.05


def test_the_order_of_the_later_references_does_not_matter(pipeline: See3DPipeline) -> None:
    """The first one also gives the CLIP embedding; the others are a set."""
    references, seeds = pictures(3, 0), [0, 1, 2, 7, 8, 9]
    first = call(pipeline, references=references, generator=[seeded(seed) for seed in seeds])
    other = [0, 2, 1]
    second = call(pipeline, references=references[other], generator=[seeded(s) for s in [*other, 7, 8, 9]])
    torch.testing.assert_close(second.images, first.images, rtol=0, atol=1e-4)
    third = call(pipeline, references=references[[1, 0, 2]], generator=[seeded(s) for s in [1, 0, 2, 7, 8, 9]])
    assert (third.images - first.images).abs().max() > 1e-3


def test_the_same_seed_gives_the_same_bits_and_another_one_others(pipeline: See3DPipeline) -> None:
    first, second, other = (call(pipeline, generator=seeded(seed)).images for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    torch.manual_seed(5)  # the global generator has no part in it
    before = torch.get_rng_state()
    assert torch.equal(call(pipeline).images, first) and torch.equal(torch.get_rng_state(), before)


def test_latents_may_be_given(pipeline: See3DPipeline) -> None:
    latents = torch.randn((TARGETS, 4, 8, 8), generator=seeded(3))
    seen: list[Tensor] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, told: seen.append(told[0]))
    call(pipeline, latents=latents)
    hook.remove()
    assert torch.equal(seen[0][REFERENCES:FRAMES, :4], latents)
    with pytest.raises(ValueError, match=r"latents must be \[3, 4, 8, 8\]"):
        call(pipeline, latents=latents[:1])


def test_oblong_pictures_and_masks_at_the_latents_size(pipeline: See3DPipeline) -> None:
    seen: list[Tensor] = []
    hook = pipeline.unet.register_forward_pre_hook(lambda module, told: seen.append(told[0]))
    known = masks(1, 2, (64, 128))
    size = (64, 128)
    output = call(pipeline, references=pictures(1, 0, size), renders=pictures(1, 1, size), masks=known, steps=1)
    hook.remove()
    assert output.images.shape == (1, 3, 64, 128)
    assert torch.equal(seen[0][1, 8], F.interpolate(known[None].float(), (8, 16), mode="nearest")[0, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(pipeline: See3DPipeline, dtype: torch.dtype) -> None:
    output = call(tiny_pipeline(dtype=dtype), steps=2)
    assert output.images.dtype == torch.float32 and output.images.isfinite().all()
    assert (output.images - call(pipeline, steps=2).images).abs().mean() < 0.05


def test_a_full_precision_vision_tower_goes_with_a_half_precision_network() -> None:
    half = tiny_pipeline(dtype=torch.bfloat16)
    half.image_encoder.float()
    assert call(half, steps=1).images.isfinite().all()


def test_nan_is_not_hidden() -> None:
    pipeline = tiny_pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    assert call(pipeline, steps=1).images.isnan().any()


def test_clip_sees_the_first_reference_alone_between_0_and_1(pipeline: See3DPipeline) -> None:
    pipeline.feature_extractor.seen.clear()
    call(pipeline, steps=1)
    (seen,) = pipeline.feature_extractor.seen
    assert torch.equal(seen, pictures(REFERENCES, 0)[0])


def test_each_tower_is_called_for_when_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU as the far device: the hooks alone move towers, and everything is home again afterwards."""
    pipeline = tiny_pipeline()
    expected = call(pipeline).images
    moved: list[str] = []
    for name in ("vae", "text_encoder", "image_encoder", "unet"):
        tower = getattr(pipeline, name)
        monkeypatch.setattr(tower, "to", lambda *told, n=name, to=tower.to, **more: (moved.append(n), to(*told))[1])
    pipeline.enable_model_cpu_offload(device="cpu")
    moved.clear()
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: moved.append("free"))
    assert torch.equal(call(pipeline).images, expected)
    first = list(dict.fromkeys(moved))
    assert set(first) == {"vae", "text_encoder", "image_encoder", "unet", "free"} and moved[-1] == "free"


def test_offloaded_towers_go_home_after_an_error(pipeline: See3DPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: freed.append(True))

    def stop(done: int, total: int) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        call(pipeline, progress=stop)
    assert freed == [True]


def test_the_progress_bar_is_the_pipelines_own(capfd: pytest.CaptureFixture[str]) -> None:
    pipeline = tiny_pipeline()
    call(pipeline, steps=2)
    assert "/3" not in capfd.readouterr().err
    pipeline.set_progress_bar_config(disable=False, desc="denoising")
    call(pipeline, steps=2)
    said = capfd.readouterr().err
    assert "denoising" in said and "3/3" in said


@pytest.mark.parametrize(("sample_size", "calls"), [(512, 1), (64, 1), (32, 9)])
def test_the_vae_tiles_where_its_config_says_so(sample_size: int, calls: int) -> None:
    """A 64-pixel picture in tiles of 32 with a quarter's overlap: 3 by 3 of them."""
    pipeline = tiny_pipeline(vae=tiny_vae(sample_size))
    seen: list[Tensor] = []
    pipeline.vae.encoder.register_forward_pre_hook(lambda module, told: seen.append(told[0]))
    call(pipeline, steps=1)
    assert len(seen) == calls * FRAMES and all(len(rows) == 1 for rows in seen)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"renders": pictures(TARGETS, 1, (96, 64)), "references": pictures(1, 0, (96, 64)),
          "masks": masks(TARGETS, 2, (96, 64))}, "multiples of 64 pixels, not 64x96"),
        ({"references": pictures(1, 0, (64, 128))}, "one size, not 128x64 and 64x64"),
        ({"masks": masks(TARGETS, 2).float()}, "masks must be bool"),
        ({"masks": masks(2, 2)}, r"masks must be bool \[3, 64, 64\]"),
        ({"renders": pictures(0, 1), "masks": masks(0, 2)}, "no render"),
        ({"renders": pictures(1, 1)[0]}, r"\[pictures, 3, height, width\]"),
        ({"steps": 0}, "steps must be from 1"),
        ({"generator": [seeded()]}, "1 generators for 5 pictures"),
    ],
)  # fmt: skip
def test_pictures_that_do_not_fit_are_refused(pipeline: See3DPipeline, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(pipeline, **changes)


def test_without_a_reference_there_is_nothing_to_go_by(pipeline: See3DPipeline) -> None:
    with pytest.raises(RefinerError, match="at least one reference"):
        call(pipeline, references=pictures(0, 0))


def test_a_network_of_another_model_is_refused() -> None:
    unet = tiny_unet()
    unet.register_to_config(in_channels=4)
    with pytest.raises(RefinerError, match="9 channels .* this one 4"):
        tiny_pipeline(unet=unet)


@pytest.mark.parametrize("unet", ["single", "SR"])
def test_the_published_layout_with_tiny_towers_goes_all_the_way(unet: Any, tiny_weights: Path) -> None:
    """The real tokenizer, CLIP's own preprocessing and files under the published names."""
    pipeline = See3DPipeline.from_folder(tiny_weights / weights.BELOW, unet)
    assert pipeline.stage is (SR if unet == "SR" else BASE)
    pipeline.set_progress_bar_config(disable=True)
    output = call(pipeline)
    assert output.evaluations == 5 and output.images.shape == (TARGETS, 3, 64, 64)
    assert output.images.isfinite().all() and output.images.std() > 0.01
    assert torch.equal(call(pipeline).images, output.images)
