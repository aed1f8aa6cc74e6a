"""Small random towers in the published layout, under the published names, as files: they go through the very code that
reads the real weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.unet import CONFIG, WEIGHTS_FILE, key_map
from closeup_ns.refine.see3d.weights import UNETS, UNetName, unet_folder

WIDTH = 32
"""Of the text and image tokens, and of the CLIP towers."""
VAE_WIDTH = 8
IMAGE_SIZE = 28
TINY_CONFIG = {
    **CONFIG, "block_out_channels": (32, 64, 96, 96), "attention_head_dim": (1, 2, 3, 3), "cross_attention_dim": WIDTH,
}  # fmt: skip
"""In place of ``unet.CONFIG``: the published topology, with narrow levels of one to three heads."""
HEAD_CHANNELS = 32
_LOG_VARIANCE = -20.0
"""Of the real VAE's latents, about: they are as good as certain."""
_LATENT_GAIN = 10.0
"""Brings the scaled latents of images to about unit variance, as the real VAE's are."""
_IMAGE_GAIN = 0.3
"""Keeps most decoded pixels off the ends of their range, where clamping would hide differences."""
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction", "set_alpha_to_one": False,
    "clip_sample": True, "steps_offset": 0, "timestep_scaling": "trailing", "timestep_spacing": "leading",
    "rescale_betas_zero_snr": False,
}  # fmt: skip
"""As the published JSON is believed to be: diffusers' defaults in the last two, which the authors' program overrides;
it reads timestep_scaling, which diffusers does not know."""


def write_tiny_weights(folder: Path, generator: torch.Generator, unets: Sequence[UNetName] = UNETS) -> Path:
    """Writes random towers to ``folder/checkpoint/MVD_weights``; gives ``folder`` back."""
    root = folder / weights.BELOW
    _write_json(root / weights.SCHEDULER_FILE, SCHEDULER)
    vocabulary = _write_tokenizer(root / "tokenizer")
    _write_text_encoder(root / "text_encoder", vocabulary, generator)
    _write_vae(root / "vae", generator)
    _write_image_encoder(root / weights.IMAGE_ENCODER, vocabulary, generator)
    for unet in unets:
        _write_unet(root / unet_folder(unet), generator)
    return folder


def _write_unet(folder: Path, generator: torch.Generator) -> None:
    """One network under the published names, with the camera tensors that nobody reads."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**TINY_CONFIG)
    state = unet.state_dict()
    tensors = {
        published: _filled(name, tuple(state[name].shape), generator) for published, name in key_map(unet).items()
    }
    for name, size in {"0": (128, 16), "2": (128, 128)}.items():
        tensors[f"camera_embed.{name}.weight"] = _filled("", size, generator)
        tensors[f"camera_embed.{name}.bias"] = torch.zeros(128)
    _write_tensors(folder / WEIGHTS_FILE, tensors)


def _write_vae(folder: Path, generator: torch.Generator) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    settings: dict[str, Any] = dict(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(VAE_WIDTH,) * 4,
        norm_num_groups=VAE_WIDTH // 2,
        latent_channels=4,
        sample_size=512,
    )
    with torch.device("meta"):
        vae = AutoencoderKL(**settings)
    tensors = {name: _filled(name, tuple(value.shape), generator) for name, value in vae.state_dict().items()}
    # The second half of the encoder's output is the latents' log variance.
    tensors["quant_conv.weight"][:4] *= _LATENT_GAIN
    tensors["quant_conv.weight"][4:] = 0
    tensors["quant_conv.bias"][4:] = _LOG_VARIANCE
    tensors["decoder.conv_out.weight"] *= _IMAGE_GAIN
    vae.save_config(folder)
    _write_tensors(folder / WEIGHTS_FILE, tensors)


def _write_text_encoder(folder: Path, vocabulary: int, generator: torch.Generator) -> None:
    from transformers import CLIPTextModel

    # Published files keep the prefix that transformers 5 has dropped from its own names.
    _write_tower(folder, CLIPTextModel, _text_config(vocabulary), generator, prefix="text_model.")


def _write_image_encoder(folder: Path, vocabulary: int, generator: torch.Generator) -> None:
    """A whole CLIP, as published: text tower and all, its projection's width said at the top level only."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=2,
        image_size=IMAGE_SIZE, patch_size=IMAGE_SIZE // 7, hidden_act="gelu",
    )  # fmt: skip
    config = CLIPConfig(
        text_config=_text_config(vocabulary).to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH
    )
    _write_tower(folder, CLIPModel, config, generator)
    preprocessing = {
        "crop_size": IMAGE_SIZE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": IMAGE_SIZE,
    }  # fmt: skip
    _write_json(folder / "preprocessor_config.json", preprocessing)


def _write_tower(folder: Path, kind: Any, config: Any, generator: torch.Generator, prefix: str = "") -> None:
    """One of transformers' models, and its config."""
    with torch.device("meta"):
        state = kind(config).state_dict()
    tensors = {
        prefix + name.removeprefix(prefix): _filled(name, tuple(value.shape), generator)
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    config.architectures = [kind.__name__]
    config.save_pretrained(folder)
    _write_tensors(folder / "model.safetensors", tensors)


def _text_config(vocabulary: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, hidden_act="gelu", projection_dim=WIDTH,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=0,
    )  # fmt: skip


def _write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer as far as the empty prompt needs it; returns the size of its vocabulary.

    As in SD 2, "!" is entry 0 and pads, which only special_tokens_map.json says.
    """
    start, end = "<|startoftext|>", "<|endoftext|>"
    entries = ["!", start, end]
    special = {"bos_token": start, "eos_token": end, "unk_token": end}
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "pad_token": end, **special}
    _write_json(folder / "vocab.json", {entry: number for number, entry in enumerate(entries)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf8")
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", {"pad_token": "!", **special})
    return len(entries)


def _filled(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A parameter as a network at its start has it: norms pass on, biases are zero, weights keep the variance."""
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1 and "embedding" not in name:
        return torch.ones(shape)
    if not shape:
        return torch.ones(())
    fan_in = max(1, int(torch.Size(shape[1:]).numel())) if "embedding.weight" not in name else shape[-1]
    return torch.randn(shape, generator=generator) / fan_in**0.5


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata={"format": "pt"})


def edit_tensors(path: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change what is in a file of weights."""
    from safetensors.torch import load_file, save_file

    tensors = {name: value.clone() for name, value in load_file(path).items()}
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def zero_snr_alphas() -> np.ndarray:
    """Cumulated alphas of SCHEDULER's betas, shifted and stretched until the last root is 0 (2305.08891, Alg. 1)."""
    betas = np.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, 1000) ** 2
    roots = np.sqrt(np.cumprod(1 - betas))
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
