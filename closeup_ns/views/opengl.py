"""OpenGL's camera axes (x right, y up, z backward: nerfstudio, transforms.json) and OpenCV's (ours): the one flip."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from closeup_ns.views.view import View

_FLIP = (1.0, -1.0, -1.0, 1.0)
Pose = TypeVar("Pose", Tensor, np.ndarray)


def flipped(c2w: Pose) -> Pose:
    """Camera-to-world [..., 3] or [..., 4] columns with the other convention's y and z axes; its own inverse."""
    columns = _FLIP[: c2w.shape[-1]]
    signs = c2w.new_tensor(columns) if isinstance(c2w, Tensor) else np.array(columns, c2w.dtype)
    return c2w * signs  # type: ignore[return-value]


def frame_of(view: View) -> dict[str, Any]:
    """The camera of a frame of transforms.json: OpenGL camera-to-world [4, 4], intrinsics and size in pixels."""
    (fx, _, cx), (_, fy, cy), _ = view.K.tolist()
    matrix = flipped(view.c2w.cpu()).tolist()
    size = {"w": view.width, "h": view.height}
    return {"transform_matrix": matrix, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, **size}
