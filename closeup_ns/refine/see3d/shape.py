"""What the sizes of a UNet's tensors tell about it, and whether its config.json says the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import keys

IN_CHANNELS = 9
"""Noisy latent (4), visual condition (4), mask (1)."""
OUT_CHANNELS = 4
"""See3D uses the first four of however many there are."""
HEAD_CHANNELS = 64
"""Width of an attention head where config.json does not say: no tensor shows it."""
NORM_GROUPS = 32
"""Of every group norm in this family of networks; all widths are multiples of it."""

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes of tensors under diffusers' names."""


@dataclass(frozen=True)
class UNetShape:
    """All that is needed to build the network."""

    in_channels: int
    """Channels that it reads."""
    out_channels: int
    """Channels that it writes, before the surplus is cut off."""
    widths: tuple[int, ...]
    """Channels of each level, finest first."""
    attends: tuple[bool, ...]
    """Whether a level has transformers, finest first."""
    heads: tuple[int, ...]
    """Attention heads of each level, finest first."""
    layers: int
    """Residual blocks of a level on the way down."""
    depth: int
    """Blocks of a transformer."""
    context: int
    """Width of the tokens that cross-attention reads."""
    linear: bool
    """Whether a transformer's projections are linear layers (SD 2) or 1x1 convolutions (SD 1)."""


def read_shape(shapes: Shapes, config: Mapping[str, Any]) -> UNetShape:
    """The network's shape from its tensors; only the width of a head is taken from ``config``.

    Raises:
        RefinerError: this is no UNet that reads See3D's nine channels. The tensor that shows it is named.
    """
    entry, leave = _size(shapes, "conv_in.weight"), _size(shapes, "conv_out.weight")
    if entry[1] != IN_CHANNELS:
        raise RefinerError(
            f"tensor {_both_names('conv_in.weight')} reads {entry[1]} channels; See3D's "
            f"reads {IN_CHANNELS}: noisy latent, visual condition, mask. These are another model's weights"
        )
    if leave[0] < OUT_CHANNELS:
        raise RefinerError(
            f"tensor {_both_names('conv_out.weight')} writes {leave[0]} channels; a latent has {OUT_CHANNELS}"
        )
    levels = _count(shapes, "down_blocks.{}.")
    layers = _count(shapes, "down_blocks.0.resnets.{}.")
    widths = tuple(_size(shapes, f"down_blocks.{level}.resnets.0.conv1.weight")[0] for level in range(levels))
    if odd := [width for width in widths if width % NORM_GROUPS]:
        raise RefinerError(f"a level has {odd[0]} channels, which its norms cannot share among {NORM_GROUPS} groups")
    first = "mid_block.attentions.0."
    return UNetShape(
        in_channels=entry[1],
        out_channels=leave[0],
        widths=widths,
        attends=tuple(f"down_blocks.{level}.attentions.0.norm.weight" in shapes for level in range(levels)),
        heads=_heads(widths, config),
        layers=layers,
        depth=_count(shapes, first + "transformer_blocks.{}."),
        context=_size(shapes, first + "transformer_blocks.0.attn2.to_k.weight")[1],
        linear=len(_size(shapes, first + "proj_in.weight")) == 2,
    )


def check_config(config: Mapping[str, Any], shape: UNetShape) -> None:
    """Whether config.json, where it says anything, says what the tensors show.

    Settings that are not known are passed over: the published files carry those of the averaging (EMA) that made them.

    Raises:
        RefinerError: a contradiction, with the setting, its value, and what the tensors show.
    """
    for name, (shown, normal) in _settings(shape).items():
        said = config.get(name)
        if said is None:
            continue
        try:
            agrees = normal(said) == normal(shown)
        except (TypeError, ValueError):
            agrees = False
        if not agrees:
            raise RefinerError(f"config.json says {name} = {said!r}, but the tensors show {shown!r}")


def _settings(shape: UNetShape) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """For each known setting, what the tensors show and how two values of it are compared."""
    base = shape.widths[0]
    factors = [2**level for level, attends in enumerate(shape.attends) if attends]
    return {
        "in_channels": (shape.in_channels, int),
        "out_channels": (shape.out_channels, int),
        # The published class's settings.
        "model_channels": (base, int),
        "channel_mult": ([width / base for width in shape.widths], lambda value: [float(item) for item in value]),
        "num_res_blocks": (shape.layers, _one),
        "attention_resolutions": (factors, lambda value: {int(item) for item in value}),
        "transformer_depth": (shape.depth, _one),
        "context_dim": (shape.context, _one),
        # Branches that would have tensors of their own, which would have been refused by name.
        "ip_dim": (0, int),
        "num_classes": (None, lambda value: value),
        # diffusers' settings, for a network that was saved again under its names.
        "block_out_channels": (list(shape.widths), list),
        "layers_per_block": (shape.layers, _one),
        "cross_attention_dim": (shape.context, _one),
    }


def _heads(widths: tuple[int, ...], config: Mapping[str, Any]) -> tuple[int, ...]:
    """Heads of each level: by their width, by their number, or as SD 2.1 has them."""
    said = config.get("attention_head_dim")
    if isinstance(said, (list, tuple)):
        if len(said) != len(widths) or any(not _positive(count) or width % count for count, width in zip(said, widths)):
            raise RefinerError(
                f"config.json says attention_head_dim = {said!r}, but the levels are {list(widths)} wide"
            )
        return tuple(said)
    if not _positive(config.get("num_head_channels")) and _positive(config.get("num_heads")):
        name, counts = "num_heads", [config["num_heads"]] * len(widths)
    else:
        name = "num_head_channels"
        width_of_one = config[name] if _positive(config.get(name)) else HEAD_CHANNELS
        counts = [max(1, width // width_of_one) if width % width_of_one == 0 else 0 for width in widths]
    if bad := [width for width, count in zip(widths, counts) if count == 0 or width % count]:
        value = config.get(name, HEAD_CHANNELS)
        raise RefinerError(f"config.json says {name} = {value!r}, but the tensors show a level of {bad[0]} channels")
    return tuple(counts)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _one(value: Any) -> int:
    """A number, or a list that repeats it for each level."""
    different = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(different) != 1:
        raise ValueError(f"{value!r} differs between levels")
    return int(different.pop())


def _size(shapes: Shapes, name: str) -> tuple[int, ...]:
    if name not in shapes or len(shapes[name]) < 2:
        fault = "is missing" if name not in shapes else f"is of shape {shapes[name]}"
        raise RefinerError(f"tensor {_both_names(name)} {fault}: this is no UNet of See3D's")
    return shapes[name]


def _both_names(name: str) -> str:
    """diffusers' name and the published one: which of them the file has is not known here."""
    return f"{name!r} (published as {keys.to_published([name])[name]!r})"


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers, from 0 without a gap, ``pattern`` is found with."""
    count = 0
    while any(name.startswith(pattern.format(count)) for name in shapes):
        count += 1
    if count == 0:
        raise RefinerError(f"there is no tensor {pattern.format(0)}*: this is no UNet of See3D's")
    return count
