"""See3D with random weights: its pipeline at full size, and how long and how much memory a joint pass of it takes."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.schedule import make_scheduler
from closeup_ns.refine.see3d.stage import BASE, Stage
from closeup_ns.refine.see3d.unet import CONFIG

_SCHEDULER = {
    "prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "set_alpha_to_one": False,
}  # fmt: skip
_WORDS = 77


class _EmptyPrompt:
    """Stands for the tokenizer, whose vocabulary is the one thing that cannot be made up here."""

    model_max_length = _WORDS

    def __call__(self, _text: str, **_keywords: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=torch.tensor([[49406] + [49407] * (_WORDS - 1)]))


def fill(tower: nn.Module, generator: torch.Generator) -> None:
    """Random weights of the size that keeps activations about as large as they come in; norms and biases idle."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def random_pipeline(
    dtype: torch.dtype, device: torch.device | str, small: bool = False, stage: Stage = BASE, seed: int = 0
) -> See3DPipeline:
    """The pipeline with random weights; CLIP's vision tower in float32.

    Args:
        small: narrow towers, to try on a CPU what a GPU would do; else those of the published sizes.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import (
        CLIPImageProcessor,
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    narrow: dict[str, Any] = {"block_out_channels": (32, 64, 96, 96), "attention_head_dim": (1, 2, 3, 3)}
    width = 64 if small else 1024
    unet = {**CONFIG, **(narrow if small else {}), "cross_attention_dim": width}
    vae: dict[str, Any] = {
        "block_out_channels": (32,) * 4 if small else (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 768,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    }  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2 if small else 23,
        num_attention_heads=width // 64, hidden_act="gelu",
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=80 if small else 1280, intermediate_size=320 if small else 5120, patch_size=14, image_size=224,
        num_hidden_layers=2 if small else 32, num_attention_heads=5 if small else 16, projection_dim=width,
        hidden_act="gelu",
    )  # fmt: skip
    with torch.device(device):
        towers = {
            "unet": UNet2DConditionModel(**unet),
            "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(text),
            "image_encoder": CLIPVisionModelWithProjection(vision),
        }
    generator = torch.Generator(device).manual_seed(seed)
    for name, tower in towers.items():
        nn.Module.to(tower, torch.float32 if name == "image_encoder" else dtype)
        fill(tower.eval(), generator)
    rest: dict[str, Any] = {"tokenizer": _EmptyPrompt(), "feature_extractor": CLIPImageProcessor()}
    return See3DPipeline(**towers, **rest, scheduler=make_scheduler(_SCHEDULER), stage=stage)


@dataclass(frozen=True)
class Measured:
    """One pass, as it went."""

    step_seconds: float
    """Median over the steps but the first, which warms kernels up."""
    around_seconds: float
    """Everything but the steps: encoding, context, decoding."""
    peak_bytes: int
    """torch.cuda.max_memory_allocated over the pass, weights included; 0 on a CPU."""
    is_finite: bool
    """Whether every pixel came out as a number."""

    def seconds(self, evaluations: int) -> float:
        """Of a pass with that many steps."""
        return self.around_seconds + evaluations * self.step_seconds


def measure(pipeline: See3DPipeline, frames: int, side: int, steps: int, device: torch.device) -> Measured:
    """Runs one pass of a few steps with ``frames`` random pictures of ``side`` pixels, half of them references."""
    on_gpu = device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    references = frames // 2
    pictures = torch.rand((frames, 3, side, side), generator=generator)
    masks = torch.rand((frames - references, side, side), generator=generator) < 0.5
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    moments = [_now(device)]
    images = pipeline(
        pictures[:references], pictures[references:], masks,
        latents=torch.randn((frames - references, 4, side // 8, side // 8), generator=generator),
        generators=[generator] * frames, steps=steps, progress=lambda _done, _total: moments.append(_now(device)),
    )  # fmt: skip
    total = _now(device) - moments[0]
    lengths = [after - before for before, after in itertools.pairwise(moments[1:])]
    step = statistics.median(lengths) if lengths else moments[1] - moments[0]
    return Measured(
        step_seconds=step,
        around_seconds=max(0.0, total - (len(moments) - 1) * step),
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else 0,
        is_finite=bool(images.isfinite().all()),
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
