"""Tiny random towers in memory for tests of the sampling, which need no files."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.schedule import make_scheduler
from closeup_ns.refine.see3d.stage import BASE, Stage

CONTEXT = 24
PROMPT_LENGTH = 7
SCHEDULER = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction", "set_alpha_to_one": False,
    "clip_sample": True, "steps_offset": 0, "timestep_scaling": "trailing", "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}  # fmt: skip
"""As the published JSON is believed to be: diffusers' defaults in the last two, which the program overrides."""


def shake(module: nn.Module, seed: int, scale: float = 0.3) -> nn.Module:
    """Every parameter replaced by one that does something, zero-initialised ones too; same seed, same values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            deviation = scale if parameter.ndim < 2 else 1 / parameter[0].numel() ** 0.5
            offset = 1.0 if parameter.ndim < 2 else 0.0
            parameter.copy_(offset * 0.5 + deviation * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def tiny_unet(seed: int = 1) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=9, out_channels=4, block_out_channels=(8, 16, 16, 16),
        layers_per_block=1, norm_num_groups=4, attention_head_dim=[1, 2, 2, 2], cross_attention_dim=CONTEXT,
        use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )  # fmt: skip
    return shake(unet, seed)  # type: ignore[return-value]


def tiny_vae(sample_size: int = 512) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), norm_num_groups=2, sample_size=sample_size,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    return shake(vae, 2)  # type: ignore[return-value]


class TinyTokenizer:
    """The empty prompt as a tokenizer pads it."""

    model_max_length = PROMPT_LENGTH

    def __call__(self, text: str, **keywords: Any) -> SimpleNamespace:
        assert text == "" and keywords["padding"] == "max_length"
        return SimpleNamespace(input_ids=torch.tensor([[1] + [2] * (PROMPT_LENGTH - 1)]))


class TinyExtractor:
    """Stands for CLIP's preprocessing."""

    def __call__(self, images: Tensor, **keywords: Any) -> dict[str, Tensor]:
        assert keywords["do_rescale"] is False
        return {"pixel_values": nn.functional.interpolate(images[None], size=(16, 16), mode="area")}


def tiny_pipeline(stage: Stage = BASE, dtype: torch.dtype = torch.float32, **parts: Any) -> See3DPipeline:
    text = CLIPTextModel(CLIPTextConfig(
        vocab_size=4, hidden_size=CONTEXT, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=PROMPT_LENGTH, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    ))  # fmt: skip
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8,
        projection_dim=CONTEXT,
    ))  # fmt: skip
    chosen: dict[str, Any] = {
        "vae": tiny_vae(), "text_encoder": shake(text, 3), "image_encoder": shake(vision, 4), "unet": tiny_unet(),
        **parts,
    }  # fmt: skip
    chosen = {name: copy.deepcopy(part).to(dtype) for name, part in chosen.items()}
    return See3DPipeline(
        **chosen, tokenizer=TinyTokenizer(), feature_extractor=TinyExtractor(), scheduler=make_scheduler(SCHEDULER),
        stage=stage,
    )  # type: ignore[arg-type]  # fmt: skip


def pictures(count: int, seed: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.rand((count, 3, *size), generator=torch.Generator().manual_seed(seed))


def masks(count: int, seed: int, size: tuple[int, int] = (64, 64)) -> Tensor:
    return torch.rand((count, *size), generator=torch.Generator().manual_seed(seed)) < 0.6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def zero_snr_alphas(start: float = 0.00085, end: float = 0.012) -> np.ndarray:
    """Cumulated alphas of scaled_linear betas, shifted and stretched until the last root is 0 (2305.08891, Alg. 1)."""
    betas = np.linspace(start**0.5, end**0.5, 1000, dtype=np.float64) ** 2
    roots = np.sqrt(np.cumprod(1 - betas))
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
