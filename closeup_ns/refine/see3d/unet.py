"""The published UNet in a stock ``UNet2DConditionModel``: Stable Diffusion 2.1's with nine input channels.

The published file has its tensors under other names (those of latent diffusion) and is else the same, one for one
(research dossier on See3D, 2.1 and 2.2). How frames are joined is told in pipeline.py.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
CONFIG: dict[str, Any] = {
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    # What diffusers calls a head's width is the number of heads, in SD 2.1's config as well.
    "attention_head_dim": (5, 10, 20, 20),
}
"""Noisy latent (4 channels), visual condition (4) and mask (1) in, latent out."""

_FIXED = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)")


def key_map(unet: UNet2DConditionModel) -> dict[str, str]:
    """From the published name of each of the network's tensors to diffusers' name."""
    return {_published(name): name for name in unet.state_dict()}


def _published(name: str) -> str:
    found = _BLOCK.match(name)
    prefix = found.group() if found else next(part for part in _FIXED if name.startswith(part + "."))
    rest = name[len(prefix) + 1 :]
    layer, _, last = rest.rpartition(".")
    if ".resnets." in prefix:
        rest = f"{_RESNET[layer]}.{last}"
    if found is None:
        return f"{_FIXED[prefix]}.{rest}"
    side, level, part, place = found.group(1), int(found.group(2)), found.group(3), int(found.group(4))
    # Blocks are numbered through; a level has three of them.
    if part == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{last}"
    if part == "upsamplers":  # after the attention, which the coarsest level has not
        return f"output_blocks.{3 * level + 2}.{2 if level else 1}.conv.{last}"
    block = f"input_blocks.{3 * level + 1 + place}" if side == "down_blocks" else f"output_blocks.{3 * level + place}"
    return f"{block}.{0 if part == 'resnets' else 1}.{rest}"


def load_unet(path: Path, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The network in the file ``path``, in evaluation mode, without gradients.

    A tensor that the network has no place for is passed over with a warning, as by the authors' program: exports of an
    averaged network carry some.

    Raises:
        RuntimeError: a tensor is missing or of another shape.
        SafetensorError, OSError: the file is broken.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from safetensors.torch import load_file

    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIG)
    names = key_map(unet)
    stored = load_file(path)
    surplus = sorted(name for name in stored if name not in names and not name.startswith("camera_embed."))
    if surplus:
        warnings.warn(f"{path}: See3D's network has no {', '.join(surplus[:3])}: not loaded", stacklevel=2)
    state = {names[name]: value.to(device, dtype) for name, value in stored.items() if name in names}
    for name in ("conv_out.weight", "conv_out.bias"):
        if name in state:
            state[name] = state[name][:4]  # a network that also tells its variance has more
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False)
