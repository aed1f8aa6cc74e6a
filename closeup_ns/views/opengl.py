"""OpenGL's camera axes (x right, y up, z backward: nerfstudio, transforms.json) and OpenCV's (ours): the one flip."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

_FLIP = (1.0, -1.0, -1.0, 1.0)
Pose = TypeVar("Pose", Tensor, np.ndarray)


def flipped(c2w: Pose) -> Pose:
    """Camera-to-world [..., 3] or [..., 4] columns with the other convention's y and z axes; its own inverse."""
    columns = _FLIP[: c2w.shape[-1]]
    signs = c2w.new_tensor(columns) if isinstance(c2w, Tensor) else np.array(columns, c2w.dtype)
    return c2w * signs  # type: ignore[return-value]
