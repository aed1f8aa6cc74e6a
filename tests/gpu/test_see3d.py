"""See3D's network: what a joint pass takes on a GPU, with random weights of the published sizes, and half precision.

Weights make no difference to memory or time.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.sampling import SceneLatents, predict
from closeup_ns.refine.see3d.schedule import make_scheduler, timesteps
from closeup_ns.refine.see3d.stage import BASE, SR, Stage
from closeup_ns.refine.see3d.unet import CONFIG
from tests.gpu.marks import needs_gpu
from tests.refine.see3d.conftest import pipeline as tiny_pipeline
from tests.refine.see3d.conftest import tiny_weights
from tests.refine.see3d.tiny import SCHEDULER

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

__all__ = ["tiny_pipeline", "tiny_weights"]
MOST_BYTES = 12e9
"""The aim for 18 frames at 512x512 in fp16."""
MOST_ERROR = 0.03
"""Relative L2 distance of one guided prediction in fp16 from float32: rounding over fifty layers, and nothing more."""
WORDS = 77


class EmptyPrompt:
    """Stands for the tokenizer, whose vocabulary is the one thing that cannot be made up here."""

    model_max_length = WORDS

    def __call__(self, _text: str, **_keywords: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=torch.tensor([[49406] + [49407] * (WORDS - 1)]))


def fill(tower: nn.Module, generator: torch.Generator) -> None:
    """Random weights of the size that keeps activations about as large as they come in; norms and biases idle."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def published(stage: Stage) -> See3DPipeline:
    """The pipeline on the GPU in its published sizes, in fp16 but for CLIP's vision tower."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import (
        CLIPImageProcessor,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    vae: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 768,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
        hidden_act="gelu",
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, patch_size=14, image_size=224, num_hidden_layers=32,
        num_attention_heads=16, projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    with torch.device("cuda"):
        towers = {
            "unet": UNet2DConditionModel(**CONFIG),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(text),
            "image_encoder": CLIPVisionModelWithProjection(vision),
        }
    generator = torch.Generator("cuda").manual_seed(0)
    for name, tower in towers.items():
        nn.Module.to(tower, torch.float32 if name == "image_encoder" else torch.float16)
        fill(tower.eval(), generator)
    rest: dict[str, Any] = {"tokenizer": EmptyPrompt(), "feature_extractor": CLIPImageProcessor()}
    return See3DPipeline(**towers, **rest, scheduler=make_scheduler(SCHEDULER), stage=stage)


def predicted(unet: UNet2DConditionModel, frames: int, side: int) -> Tensor:
    """The guided prediction for random latents, the same wherever the network is."""
    generator = torch.Generator().manual_seed(0)
    latents, references = (torch.randn((frames // 2, 4, side, side), generator=generator) for _ in range(2))
    visual = torch.randn(latents.shape, generator=generator)
    masks = (torch.rand((len(latents), 1, side, side), generator=generator) < 0.5).float()
    context = torch.randn((1, WORDS, unet.config["cross_attention_dim"]), generator=generator)
    references, visual, masks, context, latents = (
        tensor.to(unet.device) for tensor in (references, visual, masks, context, latents)
    )
    scene = SceneLatents(references, visual, masks, context)
    with torch.no_grad():
        return predict(unet, scene, latents, visual, 500, guidance=2.0)


def assert_half_is_enough(unet: UNet2DConditionModel, frames: int, side: int) -> None:
    """One step in fp16 where the network is, and in float32 on the CPU with the same weights."""
    half, whole = copy.deepcopy(unet), copy.deepcopy(unet)
    nn.Module.to(half, torch.float16)  # diffusers' own warns of a cast that is wanted here
    nn.Module.to(whole, "cpu", torch.float32)
    told, expected = predicted(half, frames, side).float().cpu(), predicted(whole, frames, side)
    error = float((told - expected).norm() / expected.norm())
    print(f"one step on {unet.device} in fp16 against float32 on the CPU: relative error {error:.2%}")
    assert 0 < error <= MOST_ERROR


def test_half_precision_is_enough_for_narrow_networks(tiny_pipeline: See3DPipeline) -> None:
    assert_half_is_enough(tiny_pipeline.unet, 3, 8)


@needs_gpu
@pytest.mark.parametrize("stage, frames", [(BASE, 18), (SR, SR.frames)], ids=["see3d", "see3d-sr"])
def test_a_joint_pass_fits_and_half_precision_is_enough(stage: Stage, frames: int) -> None:
    """Half of the pictures are references. A step's time is the median without the first, which warms kernels up."""
    pipeline, generator, targets = published(stage), torch.Generator().manual_seed(0), frames - frames // 2
    pictures = torch.rand((frames, 3, stage.side, stage.side), generator=generator)
    masks = torch.rand((targets, stage.side, stage.side), generator=generator) < 0.5
    torch.cuda.reset_peak_memory_stats()
    moments = []

    def note(_done: int, _total: int) -> None:
        torch.cuda.synchronize()
        moments.append(time.perf_counter())

    started = time.perf_counter()
    images = pipeline(
        pictures[targets:], pictures[:targets], masks,
        latents=torch.randn((targets, 4, stage.side // 8, stage.side // 8), generator=generator),
        generators=[generator] * frames, steps=6, progress=note,
    )  # fmt: skip
    took = time.perf_counter() - started
    step = statistics.median(after - before for before, after in itertools.pairwise(moments))
    evaluations, peak = len(timesteps(stage.steps)), torch.cuda.max_memory_allocated()
    whole = took + (evaluations - len(moments)) * step
    print(f"{stage.name}, {frames} pictures: {peak / 2**30:.2f} GiB at most, {step:.3f} s a step, {whole:.1f} s a pass")
    assert images.isfinite().all() and peak <= MOST_BYTES
    assert_half_is_enough(pipeline.unet, 6, 16)
