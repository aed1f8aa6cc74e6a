"""The published UNet in a stock ``UNet2DConditionModel``, built from what its tensors are, not from what a file says.

How it is joined over frames is told in attention.py; here it is Stable Diffusion 2.1's with nine input channels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import keys
from closeup_ns.refine.see3d.shape import OUT_CHANNELS, Shapes, UNetShape, check_config, read_shape
from closeup_ns.weights.header import BrokenFile, TensorEntry, read_header

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

_FLOATS = ("F16", "BF16", "F32", "F64")


def load_unet(folder: Path, dtype: torch.dtype, device: torch.device) -> UNet2DConditionModel:
    """The network in ``folder`` (config.json and safetensors), in evaluation mode, without gradients.

    Tensors go one by one from the file into ``dtype`` on ``device``: there is never a second copy of the network.

    Raises:
        RefinerError: the file is broken, the config contradicts the tensors, or a tensor is missing, unexpected, of
            another shape, or not finite. It names the file and the tensor.
    """
    path = folder / WEIGHTS_FILE
    config = read_config(folder / CONFIG_FILE)
    try:
        header = read_header(path)
        names = keys.to_diffusers(header)
        shapes = _checked_shapes(header, names)
        shape = read_shape(shapes, config)
        unet = build(shape)
        _compare(shapes, {name: tuple(value.shape) for name, value in unet.state_dict().items()}, names)
        check_config(config, shape)
        unet.load_state_dict(_tensors(path, names, dtype, device), strict=True, assign=True)
    except (BrokenFile, OSError, RefinerError) as problem:
        raise RefinerError(f"{path}: {problem}") from problem
    return unet.eval().requires_grad_(False)


def check_unet(folder: Path) -> None:
    """Whether the network in ``folder`` is one of See3D's, judged by names and shapes alone.

    Neither torch's nor diffusers' modules are built and no tensor is read.

    Raises:
        RefinerError: it is not; the message names the file and the tensor.
    """
    path = folder / WEIGHTS_FILE
    config = read_config(folder / CONFIG_FILE)
    try:
        header = read_header(path)
        check_config(config, read_shape(_checked_shapes(header, keys.to_diffusers(header)), config))
    except (BrokenFile, OSError, RefinerError) as problem:
        raise RefinerError(f"{path}: {problem}") from problem


def read_config(path: Path) -> dict[str, Any]:
    """A part's JSON table.

    Raises:
        RefinerError: the file cannot be read or holds something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as problem:
        raise RefinerError(f"{path} cannot be read: {problem}") from problem
    if not isinstance(config, dict):
        raise RefinerError(f"{path} holds no table of settings")
    return config


def build(shape: UNetShape) -> UNet2DConditionModel:
    """The network of this shape with its four output channels, on the meta device: sizes without memory."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attends]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.attends)]
    settings: dict[str, Any] = dict(
        in_channels=shape.in_channels,
        out_channels=OUT_CHANNELS,
        block_out_channels=shape.widths,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=shape.layers,
        transformer_layers_per_block=shape.depth,
        cross_attention_dim=shape.context,
        use_linear_projection=shape.linear,
        # What diffusers calls a head's width is the number of heads, in SD 2.1's config as well.
        attention_head_dim=shape.heads,
    )
    with torch.device("meta"):
        return UNet2DConditionModel(**settings)


def _checked_shapes(header: Mapping[str, TensorEntry], names: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes under diffusers' names of what will be loaded."""
    for name in names:
        if header[name].dtype not in _FLOATS:
            raise RefinerError(f"tensor {name!r} is of type {header[name].dtype}, not one of {', '.join(_FLOATS)}")
    return {ours: header[theirs].shape for theirs, ours in names.items()}


def _compare(found: Shapes, expected: Shapes, names: Mapping[str, str]) -> None:
    """Whether the file's tensors are the network's, one for one.

    Raises:
        RefinerError: with the tensor's name as it is (or should be) in the file.
    """
    in_file = {ours: theirs for theirs, ours in names.items()}
    published = any(theirs != ours for theirs, ours in names.items())
    missing = [name for name in expected if name not in found]
    if missing:
        said = keys.to_published(expected) if published else {name: name for name in missing}
        raise RefinerError(f"tensor {said[missing[0]]!r} is missing{_and_more(missing)}")
    unexpected = [in_file[name] for name in found if name not in expected]
    if unexpected:
        raise RefinerError(f"tensor {unexpected[0]!r} is not one of See3D's network{_and_more(unexpected)}")
    for name, shape in found.items():
        if name.startswith("conv_out."):
            shape = (min(shape[0], OUT_CHANNELS), *shape[1:])
        if shape != expected[name]:
            raise RefinerError(f"tensor {in_file[name]!r} is of shape {shape} where {expected[name]} was expected")


def _tensors(path: Path, names: Mapping[str, str], dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    with safe_open(str(path), framework="pt", device="cpu") as file:
        for theirs, ours in names.items():
            stored = file.get_tensor(theirs)
            if ours.startswith("conv_out."):
                stored = stored[:OUT_CHANNELS]
            tensor = stored.to(device=device, dtype=dtype)
            if not bool(torch.isfinite(tensor).all()):
                fault = f"overflows {dtype}" if bool(torch.isfinite(stored).all()) else "holds NaN or infinity"
                raise RefinerError(f"tensor {theirs!r} {fault}")
            tensors[ours] = tensor
    return tensors


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
