"""Pictures as 8-bit files: how colours become bytes, and how a file of them is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from closeup_ns.atomic import atomic_path


def to_bytes(values: Float[Tensor, "*shape"] | Bool[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[0, 1], or a mask, to 8 bits on the CPU, rounded; what is outside is clipped, and NaN is 0."""
    return (torch.nan_to_num(values.detach().double()).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def write_picture(path: Path, picture: Image.Image | NDArray | Tensor, **options: Any) -> None:
    """Save a picture whole or not at all, as PNG or JPEG by the suffix.

    Args:
        picture: [H, W, 3] or [H, W]: uint8 as they are; a tensor of another type as `to_bytes` makes it.
        options: Pillow's, such as ``quality`` or ``compress_level``.

    Raises:
        DiskError: the disk refuses it.
    """
    if isinstance(picture, Tensor):
        picture = (picture.cpu() if picture.dtype == torch.uint8 else to_bytes(picture)).numpy()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    encoded = io.BytesIO()
    image.save(encoded, Image.registered_extensions()[path.suffix.lower()], **options)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.getvalue())  # not by PIL, whose errors do not say that the disk is full
