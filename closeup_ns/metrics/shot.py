"""One render to be scored, with everything that it may be compared with."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Shot:
    """A render at one camera. Pictures are what is (or would be) on disk: 8 bits, RGB."""

    name: str
    """Names the camera; unique within an evaluation."""
    scale: float
    """How many times nearer than the training photographs: 1 for a far view, 3, 9, 27 for close-ups."""
    picture: UInt8[Tensor, "H W 3"]
    """The render."""
    truth: UInt8[Tensor, "H W 3"] | None = None
    """The photograph of this camera; None where there is none."""
    counted: Bool[Tensor, "H W"] | None = None
    """The photograph's mask, True where a pixel counts; None: everywhere."""
    reference: UInt8[Tensor, "h w 3"] | None = None
    """The training photograph with the most coverage of what this camera sees (section 5.1); None where unknown."""
    reference_name: str = ""
    """Which photograph that is."""


def scale_label(scale: float) -> str:
    """Name of a scale in tables and keys: far, 3x, 9x, 27x, 1.4x."""
    return "far" if scale == 1 else f"{scale:g}x"
