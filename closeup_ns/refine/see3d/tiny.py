"""Small random towers in the published layout, under the published names: everything is exercised, nothing is refined.

They are written as files, not built in memory, so that whoever uses them goes through the very code that reads the real
weights: the renaming, the width read off the tensors, a config with settings of the averaging in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from closeup_ns.refine.see3d import keys, layout
from closeup_ns.refine.see3d.layout import UNETS, UNetName
from closeup_ns.refine.see3d.shape import IN_CHANNELS, OUT_CHANNELS, UNetShape
from closeup_ns.refine.see3d.unet import CONFIG_FILE, WEIGHTS_FILE, build

_EMA_SETTINGS = {
    "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 20000, "power": 0.6666666666666666,
    "update_after_step": 0, "use_ema_warmup": False,
}  # fmt: skip
"""What diffusers' EMAModel adds to the config of a network that it saves."""

_CAMERA_WIDTH = 16
_LOG_VARIANCE = -20.0
"""Of the real VAE's latents, about: they are as good as certain."""
_LATENT_GAIN = 10.0
"""Brings the scaled latents of images to about unit variance, as the real VAE's are."""
_IMAGE_GAIN = 0.3
"""Keeps most decoded pixels off the ends of their range, where clamping would hide differences."""


@dataclass(frozen=True)
class TinySizes:
    """Widths of the tiny towers. The topology is the published one throughout."""

    widths: tuple[int, ...] = (32, 64, 96, 96)
    """Channels of the UNet's levels; multiples of its 32 norm groups, and different where the real ones are."""
    head_channels: int = 32
    """Width of an attention head: one head at the finest level keeps large images affordable."""
    context: int = 32
    """Width of the text and image tokens, and of the CLIP towers."""
    vae_width: int = 8
    """Channels of each of the VAE's four levels."""
    image_size: int = 224
    """Side of the image encoder's input."""
    prediction: str = "v_prediction"
    """For scheduler_config.json."""


def write_tiny_weights(
    folder: Path, generator: torch.Generator, *, unets: Sequence[UNetName] = UNETS, **sizes: Any
) -> Path:
    """Writes random towers to ``folder/checkpoint/MVD_weights``; the same generator state gives the same bytes.

    Args:
        folder: Made if it is not there; files of an earlier call are replaced.
        generator: The only source of randomness, on the CPU.
        unets: Which of the three networks.
        sizes: Fields of ``TinySizes``.

    Returns:
        ``folder``, as ``load_components`` takes it.
    """
    chosen = TinySizes(**sizes)
    root = folder / layout.BELOW
    _write_json(root / "model_index.json", {"_class_name": "MVDreamPipeline", "_diffusers_version": "0.27.2"})
    _write_json(root / layout.SCHEDULER / "scheduler_config.json", _scheduler(chosen))
    vocabulary = _write_tokenizer(root / layout.TOKENIZER)
    _write_text_encoder(root / layout.TEXT_ENCODER, chosen, vocabulary, generator)
    _write_vae(root / layout.VAE, chosen, generator)
    _write_image_encoder(root / layout.IMAGE_ENCODER, chosen, vocabulary, generator)
    for unet in unets:
        _write_unet(root / layout.unet_folder(unet), chosen, generator)
    return folder


def _scheduler(sizes: TinySizes) -> dict[str, Any]:
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.27.2",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": sizes.prediction,
        "rescale_betas_zero_snr": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        # Not a setting that diffusers knows; the authors' program reads it, so the published file has to have it.
        "timestep_scaling": "trailing",
        "trained_betas": None,
    }


def _write_unet(folder: Path, sizes: TinySizes, generator: torch.Generator) -> None:
    """One network with LDM's names, a config as an averaging saves it, and the camera tensors that nobody reads."""
    levels = len(sizes.widths)
    attends = tuple(level < levels - 1 for level in range(levels))
    shape = UNetShape(
        in_channels=IN_CHANNELS,
        out_channels=OUT_CHANNELS,
        widths=sizes.widths,
        attends=attends,
        heads=tuple(width // sizes.head_channels for width in sizes.widths),
        layers=keys.RESNETS_DOWN,
        depth=1,
        context=sizes.context,
        linear=True,
    )
    state = build(shape).state_dict()
    names = keys.to_published(state)
    tensors = {names[name]: _filled(name, tuple(value.shape), generator) for name, value in state.items()}
    embedding = 4 * sizes.widths[0]
    for name, size in {"0": (embedding, _CAMERA_WIDTH), "2": (embedding, embedding)}.items():
        tensors[f"camera_embed.{name}.weight"] = _filled("", size, generator)
        tensors[f"camera_embed.{name}.bias"] = torch.zeros(embedding)
    base = sizes.widths[0]
    config = {
        "_class_name": "MultiViewUNetModel",
        "_diffusers_version": "0.27.2",
        "image_size": 32,
        "in_channels": IN_CHANNELS,
        "out_channels": OUT_CHANNELS,
        "model_channels": base,
        "attention_resolutions": [2**level for level in reversed(range(levels)) if attends[level]],
        "num_res_blocks": keys.RESNETS_DOWN,
        "channel_mult": [width // base if width % base == 0 else width / base for width in sizes.widths],
        "num_heads": -1,
        "num_head_channels": sizes.head_channels,
        "transformer_depth": 1,
        "context_dim": sizes.context,
        "num_classes": None,
        "camera_dim": _CAMERA_WIDTH,
        "ip_dim": 0,
    }
    _write_json(folder / CONFIG_FILE, {**config, **_EMA_SETTINGS})
    _write_tensors(folder / WEIGHTS_FILE, tensors)


def _write_vae(folder: Path, sizes: TinySizes, generator: torch.Generator) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    settings: dict[str, Any] = dict(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(sizes.vae_width,) * 4,
        norm_num_groups=sizes.vae_width // 2,
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


def _write_text_encoder(folder: Path, sizes: TinySizes, vocabulary: int, generator: torch.Generator) -> None:
    from transformers import CLIPTextModel

    config = _text_config(sizes, vocabulary)
    with torch.device("meta"):
        model = CLIPTextModel(config)
    state = model.state_dict()
    # Published files keep the prefix that transformers 5 has dropped from its own names.
    tensors = {
        f"text_model.{name.removeprefix('text_model.')}": _filled(name, tuple(value.shape), generator)
        for name, value in state.items()
        if not name.endswith("position_ids")
    }
    config.architectures = ["CLIPTextModel"]
    config.save_pretrained(folder)
    _write_tensors(folder / "model.safetensors", tensors)


def _write_image_encoder(folder: Path, sizes: TinySizes, vocabulary: int, generator: torch.Generator) -> None:
    """A whole CLIP, as published: text tower and all, its projection's width said at the top level only."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=sizes.context, intermediate_size=2 * sizes.context, num_hidden_layers=2, num_attention_heads=2,
        image_size=sizes.image_size, patch_size=sizes.image_size // 7, hidden_act="gelu",
    )  # fmt: skip
    config = CLIPConfig(
        text_config=_text_config(sizes, vocabulary).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=sizes.context,
    )
    with torch.device("meta"):
        model = CLIPModel(config)
    tensors = {
        name: _filled(name, tuple(value.shape), generator)
        for name, value in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    config.architectures = ["CLIPModel"]
    config.save_pretrained(folder)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": sizes.image_size,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": sizes.image_size,
        },
    )
    _write_tensors(folder / "model.safetensors", tensors)


def _text_config(sizes: TinySizes, vocabulary: int) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=sizes.context, intermediate_size=2 * sizes.context, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=77, hidden_act="gelu", projection_dim=sizes.context,
        bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=0,
    )  # fmt: skip


def _write_tokenizer(folder: Path) -> int:
    """A byte-pair tokenizer of CLIP's kind with two merges; returns the size of its vocabulary.

    As in SD 2, "!" is entry 0 and pads, which only special_tokens_map.json says.
    """
    start, end, word = "<|startoftext|>", "<|endoftext|>", "</w>"
    symbols = _byte_symbols()
    merges = [("t", "h"), ("th", "e" + word)]
    entries = [*symbols, *(symbol + word for symbol in symbols), *("".join(pair) for pair in merges), start, end]
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "vocab.json", {entry: number for number, entry in enumerate(entries)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf8")
    special = {"bos_token": start, "eos_token": end, "unk_token": end}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
            "do_lower_case": True,
            "pad_token": end,
            **special,
        },
    )
    _write_json(folder / "special_tokens_map.json", {"pad_token": "!", **special})
    return len(entries)


def _byte_symbols() -> list[str]:
    """One printable character for each byte, in the order of byte-level vocabularies.

    Printable bytes come first and stand for themselves; the others get the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(others)]


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
