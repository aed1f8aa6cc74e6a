"""Small random diffusers pipelines in the layout that hubs publish, and requests for them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from closeup_ns.refine.refiner import GuideImage, RefineRequest
from closeup_ns.refine.see3d.tiny import _write_tokenizer
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.view import View
from tests.refine.scene import camera

WIDTHS = (8, 16)
CONTEXT = 8


def _seeded(build: Any) -> Any:
    """What ``build`` makes with weights from a fixed seed, whatever the global one is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def unet(channels: int, context: int = CONTEXT, **options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return _seeded(
        partial(
            UNet2DConditionModel,
            sample_size=8,
            in_channels=channels,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=WIDTHS,
            layers_per_block=1,
            cross_attention_dim=context,
            attention_head_dim=2,
            norm_num_groups=4,
            **options,
        )
    )


def vae(levels: int = 4) -> Any:
    """f = 2^(levels - 1): 8 as Stable Diffusion's, 4 as its upscaler's."""
    from diffusers import AutoencoderKL

    return _seeded(
        partial(
            AutoencoderKL,
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels,
            latent_channels=4,
            norm_num_groups=4,
        )
    )


def tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    _write_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def text_encoder(words: int, projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=words, hidden_size=CONTEXT, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=projection or CONTEXT, pad_token_id=0, bos_token_id=words - 2,
        eos_token_id=words - 1,
    )  # fmt: skip
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return _seeded(lambda: kind(config).eval())


def image_to_image(folder: Path) -> Path:
    """A stock StableDiffusionImg2ImgPipeline, saved below ``folder``."""
    from diffusers import DDPMScheduler, StableDiffusionImg2ImgPipeline

    words = tokenizer(folder / "words")
    pipeline = StableDiffusionImg2ImgPipeline(
        vae=vae(),
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        unet=unet(4),
        scheduler=DDPMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(str(folder / "model"))
    return folder / "model"


def upscaler(folder: Path) -> Path:
    """A stock StableDiffusionUpscalePipeline, saved below ``folder``."""
    from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionUpscalePipeline

    words = tokenizer(folder / "words")
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae(3),
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        unet=unet(7, num_class_embeds=1000),
        low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
        max_noise_level=350,
    )
    pipeline.save_pretrained(str(folder / "model"))
    return folder / "model"


def sdxl(folder: Path, refiner: bool) -> Path:
    """A stock SDXL refiner (image to image, second text tower alone) or base pipeline, saved below ``folder``."""
    from diffusers import DDIMScheduler, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

    words = tokenizer(folder / "words")
    # The added embedding: pooled text, and 256 sizes' worth of 4 sinusoids each (5 values in the refiner).
    scores, context = (5, CONTEXT) if refiner else (6, 2 * CONTEXT)
    network = unet(
        4,
        context,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=CONTEXT + 4 * scores,
        use_linear_projection=True,
    )
    parts: dict[str, Any] = dict(
        vae=vae(),
        text_encoder=None if refiner else text_encoder(len(words)),
        text_encoder_2=text_encoder(len(words), CONTEXT),
        tokenizer=None if refiner else words,
        tokenizer_2=words,
        unet=network,
        scheduler=DDIMScheduler(),
        add_watermarker=False,
    )
    if refiner:
        pipeline: Any = StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True)
    else:
        pipeline = StableDiffusionXLPipeline(**parts)
    pipeline.save_pretrained(str(folder / "model"))
    return folder / "model"


PIPELINE_CODE = """
import numpy as np
import torch
from types import SimpleNamespace
from diffusers import DiffusionPipeline


class TinyFixPipeline(DiffusionPipeline):
    def __init__(self, net, scheduler):
        super().__init__()
        self.register_modules(net=net, scheduler=scheduler)
        self.seen = []

    @torch.no_grad()
    def __call__(self, prompt, image, ref_image=None, num_inference_steps=4, timesteps=None, guidance_scale=7.5,
                 generator=None, output_type="pil"):
        self.seen.append(dict(prompt=prompt, image=np.asarray(image), num_inference_steps=num_inference_steps,
                              ref_image=None if ref_image is None else np.asarray(ref_image),
                              timesteps=timesteps, guidance_scale=guidance_scale, output_type=output_type))
        pixels = torch.from_numpy(np.asarray(image).astype(np.float32) / 255)
        noise = torch.randn(pixels.shape, generator=generator)
        self.seen[-1]["noise"] = noise
        return SimpleNamespace(images=[(pixels * self.net.gain + 0.05 * noise).numpy()])
"""
NETWORK_CODE = """
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class TinyNet(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, size: int = 1):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(size))
"""


def with_code(folder: Path) -> Path:
    """A pipeline that comes with its own code, in the root and in a part's folder, as Difix's does."""
    from safetensors.torch import save_file

    (folder / "net").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    (folder / "pipeline.py").write_text(PIPELINE_CODE)
    (folder / "net" / "tiny_net.py").write_text(NETWORK_CODE)
    (folder / "net" / "config.json").write_text(json.dumps({"_class_name": "TinyNet", "size": 1}))
    save_file({"gain": torch.tensor([0.9])}, str(folder / "net" / "diffusion_pytorch_model.safetensors"))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    index = {
        "_class_name": "TinyFixPipeline",
        "net": ["tiny_net", "TinyNet"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def smooth(generator: torch.Generator, height: int, width: int) -> torch.Tensor:
    """A picture [H, W, 3] with some structure."""
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).contiguous()


def known(view: View, share: float = 1.0) -> ReliablePixels:
    """Everything dense, nothing sparse."""
    size = (view.height, view.width)
    dense = torch.zeros(size, dtype=torch.bool)
    dense[: round(size[0] * share)] = True
    empty = torch.zeros(3, *size)
    return ReliablePixels(dense, torch.zeros_like(dense), empty, empty, dense.long(), torch.ones(dense.shape))


def request(count: int = 2, width: int = 72, height: int = 50, seed: int = 0, **options: Any) -> RefineRequest:
    """``count`` views side by side, one anchor before each, one neighbour."""
    generator = torch.Generator().manual_seed(11)
    views = [camera(0.4 * index, 0, 1, width, height) for index in range(count)]
    ones = torch.ones(height, width)
    renders = [Rendered(smooth(generator, height, width), 2 * ones, ones) for _ in views]
    anchors = [
        GuideImage(f"train/{index}", camera(0.4 * index, 0.01, 0.5, 40, 40), smooth(generator, 40, 40), True)
        for index in range(count)
    ]
    masks = [known(view) for view in views]
    names = [f"t0_update_{index:02d}" for index in range(count)]
    filled: dict[str, Any] = dict(names=names, anchors=anchors)
    return RefineRequest(views, renders, masks, [], seed, **{**filled, **options})
