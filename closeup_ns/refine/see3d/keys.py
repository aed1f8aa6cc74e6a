"""Names of the UNet's tensors: those of the published files (LDM) and those of diffusers, both ways.

The published network is, tensor for tensor, Stable Diffusion 2.1's with nine input channels, so one set of names can be
turned into the other without touching a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from closeup_ns.errors import RefinerError

RESNETS_DOWN = 2
"""Residual blocks of a level on the way down; one more on the way up. The published names are numbered by it."""

_DROPPED = ("camera_embed.",)
"""Stored with the published weights, never used by them: See3D is told nothing about cameras."""

_FOREIGN = {
    "image_embed.": "an image-prompt adapter (ImageDream)",
    "to_k_ip": "an image-prompt adapter (ImageDream)",
    "to_v_ip": "an image-prompt adapter (ImageDream)",
    "id_predictor": "an identity predictor",
    "label_emb": "class labels",
}
"""Parts of names that only other models have, and what they are for."""

_FIXED = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_RESNET_BACK = {ours: theirs for theirs, ours in _RESNET.items()}
_FIXED_BACK = {ours: theirs for theirs, ours in _FIXED.items()}

_PUBLISHED_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)")
_DIFFUSERS_BLOCK = re.compile(
    r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_UP_ATTENTION = re.compile(r"up_blocks\.(\d+)\.attentions\.")


def to_diffusers(names: Iterable[str]) -> dict[str, str]:
    """From the tensors' names in a file to those in diffusers; tensors that are not used are left out.

    Names that are diffusers' already, and names that belong to neither, stay as they are.

    Raises:
        RefinerError: a tensor belongs to another model, or two tensors come out under one name.
    """
    renamed: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in names:
        for mark, part in _FOREIGN.items():
            if mark in name:
                raise RefinerError(f"tensor {name!r} belongs to {part}: these are not See3D's weights")
        if name.startswith(_DROPPED):
            continue
        target = _diffusers_name(name)
        if target in taken:
            raise RefinerError(f"tensors {taken[target]!r} and {name!r} are both diffusers' {target!r}")
        taken[target] = name
        renamed[name] = target
    return renamed


def to_published(names: Collection[str]) -> dict[str, str]:
    """From diffusers' names of a whole network to the published ones.

    All of a network's names are needed: where an upsampler is numbered depends on whether its level has attention.
    """
    attending = {int(found.group(1)) for name in names if (found := _UP_ATTENTION.match(name))}
    return {name: _published_name(name, attending) for name in names}


def _diffusers_name(name: str) -> str:
    block = _PUBLISHED_BLOCK.fullmatch(name)
    if block and not name.startswith("input_blocks.0."):
        side, number, part, rest = block.group(1), int(block.group(2)), int(block.group(3)), block.group(4)
        return _down(number, part, rest) if side == "input_blocks" else _up(number, part, rest)
    for theirs, ours in _FIXED.items():
        if name.startswith(theirs + "."):
            rest = name[len(theirs) + 1 :]
            return f"{ours}.{_swapped(rest, _RESNET) if '.resnets.' in ours else rest}"
    return name


def _down(number: int, part: int, rest: str) -> str:
    level, place = divmod(number - 1, RESNETS_DOWN + 1)
    if rest.startswith("op."):
        return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
    return f"down_blocks.{level}.{_layer(place, part, rest)}"


def _up(number: int, part: int, rest: str) -> str:
    level, place = divmod(number, RESNETS_DOWN + 1)
    if part > 0 and rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    return f"up_blocks.{level}.{_layer(place, part, rest)}"


def _layer(place: int, part: int, rest: str) -> str:
    return f"resnets.{place}.{_swapped(rest, _RESNET)}" if part == 0 else f"attentions.{place}.{rest}"


def _published_name(name: str, attending: Collection[int]) -> str:
    block = _DIFFUSERS_BLOCK.fullmatch(name)
    if block is None:
        for ours, theirs in _FIXED_BACK.items():
            if name.startswith(ours + "."):
                rest = name[len(ours) + 1 :]
                return f"{theirs}.{_swapped(rest, _RESNET_BACK) if '.resnets.' in ours else rest}"
        return name
    side, level, layer, place, rest = block.groups()
    first = int(level) * (RESNETS_DOWN + 1)
    if layer == "downsamplers":
        return f"input_blocks.{first + 1 + RESNETS_DOWN}.0.op.{rest.removeprefix('conv.')}"
    if layer == "upsamplers":
        return f"output_blocks.{first + RESNETS_DOWN}.{2 if int(level) in attending else 1}.{rest}"
    number = (
        f"input_blocks.{first + 1 + int(place)}" if side == "down_blocks" else f"output_blocks.{first + int(place)}"
    )
    return f"{number}.0.{_swapped(rest, _RESNET_BACK)}" if layer == "resnets" else f"{number}.1.{rest}"


def _swapped(rest: str, table: dict[str, str]) -> str:
    """``rest``, with what stands before its last point (weight, bias) looked up in ``table``."""
    stem, _, last = rest.rpartition(".")
    return f"{table.get(stem, stem)}.{last}" if stem else rest
