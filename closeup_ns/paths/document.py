"""A path as nerfstudio's camera_path.json, for `ns-render camera-path` and "Load Path" in the viewer's Render tab.

`ns-render` takes the frames as they are. The Render tab reads the keyframes alone and lays a spline of its own through
them, so there are enough of them for the spline to stay where the path was found free.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.paths.geometry import vertical_fov
from closeup_ns.paths.options import PlannedPath
from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View

_DEGREES = 15.0
"""Largest turn between two keyframes, of the camera or about the target."""
_MAGNIFICATION = math.sqrt(3.0)
"""Largest change of the distance between two keyframes: half a round of the paper."""
_TIME = 1.0 / 12.0
"""Largest share of the video between two keyframes: the spline knows no easing, and a slow start would be lost."""


def camera_path(path: PlannedPath, fps: float, long_side: int = 0) -> dict[str, Any]:
    """The path as JSON's plain values, in the form of nerfstudio 1.1.5.

    Poses are OpenGL camera-to-world in nerfstudio's world, fields of view vertical and in degrees. nerfstudio puts the
    principal point at the image's centre. Width and height are even, which H.264 asks for.

    Args:
        fps: Frames per second.
        long_side: Pixels on the video's longer side; 0 takes the start view's.
    """
    first = path.views[0]
    factor = long_side / max(first.width, first.height) if long_side > 0 else 1.0
    width, height = (max(2, round(side * factor) // 2 * 2) for side in (first.width, first.height))
    frames = [_frame(view) | {"aspect": width / height} for view in path.views]
    chosen = keyframes(path.views, path.target)
    return {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": len(frames) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        # The Render tab takes a keyframe's field of view only where it differs from this, and its own slider elsewhere.
        "default_fov": 0.0,
        "default_transition_sec": len(frames) / fps / max(1, len(chosen) - 1),
        "keyframes": [_keyframe(frames[index], index - before, fps) for before, index in zip([0, *chosen], chosen)],
        "camera_path": frames,
        "closeup": {
            "kind": path.kind,
            "target": path.target.tolist(),
            "zoom": path.zoom,
            "bend_degrees": path.bend,
            "sweep_degrees": path.sweep,
            "warnings": list(path.warnings),
        },
    }


def keyframes(views: Sequence[View], target: Float[Tensor, "3"]) -> list[int]:
    """The frames that nerfstudio's spline goes through: the ends, the paper's rounds, and enough in between."""
    stages = stage_frames(views, target)
    change = _change(views, target)
    chosen = {stages[-1]}
    for first, last in itertools.pairwise(stages):
        total = float(change[last] - change[first])
        pieces = max(1, math.ceil(total - 1e-6))
        goals = change[first] + total * torch.arange(pieces, dtype=change.dtype) / pieces
        chosen |= {first, *torch.searchsorted(change, goals).clamp(first, last).tolist()}
    return sorted(chosen)


def stage_frames(views: Sequence[View], target: Float[Tensor, "3"]) -> list[int]:
    """The frames at the paper's rounds, 1x, 3x, 9x and so on from the end that is further away, and both ends."""
    distances = torch.stack([(view.position - target.to(view.position)).norm() for view in views])
    furthest = torch.maximum(distances[0], distances[-1])
    stages = torch.log(furthest / distances) / math.log(3.0)
    frames = {0, len(views) - 1}
    for stage in range(1, math.floor(float(stages.max()) + 1e-6) + 1):
        frames.add(int((stages - stage).abs().argmin()))
    return sorted(frames)


def _change(views: Sequence[View], target: Tensor) -> Tensor:
    """How far each frame is along the path [n], counted in largest changes between two keyframes."""
    poses = torch.stack([view.c2w for view in views]).double().cpu()
    outward = poses[:, :3, 3] - target.to(poses)
    distance = outward.norm(dim=1, keepdim=True)
    approach = distance[:, 0].log().diff().abs() / math.log(_MAGNIFICATION)
    around = _angle((outward / distance)[1:], (outward / distance)[:-1])
    # The gaze and the image's vertical: both together are the whole rotation.
    turn = torch.maximum(_angle(poses[1:, :3, 2], poses[:-1, :3, 2]), _angle(poses[1:, :3, 1], poses[:-1, :3, 1]))
    steps = torch.maximum(approach, torch.maximum(around, turn) / _DEGREES).clamp_min(1.0 / (_TIME * len(approach)))
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Degrees between unit vectors [n, 3], well-conditioned near 0."""
    return torch.rad2deg(2.0 * torch.atan2((first - second).norm(dim=1), (first + second).norm(dim=1)))


def _frame(view: View) -> dict[str, Any]:
    matrix = flipped(view.c2w.double()).flatten().tolist()
    return {"camera_to_world": matrix, "fov": math.degrees(vertical_fov(view))}


def _keyframe(frame: dict[str, Any], since: int, fps: float) -> dict[str, Any]:
    return {
        "matrix": frame["camera_to_world"],
        "fov": frame["fov"],
        "aspect": frame["aspect"],
        "override_transition_enabled": since > 0,
        "override_transition_sec": since / fps if since > 0 else None,
    }
