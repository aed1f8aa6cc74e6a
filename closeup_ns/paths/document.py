"""A path as nerfstudio's camera_path.json, for `ns-render camera-path` and "Load Path" in the viewer's Render tab.

`ns-render` takes the frames as they are. The Render tab reads the keyframes alone and lays a spline of its own through
them, so there are enough of them for the spline to stay where the path was found free.
"""

from __future__ import annotations

import math
from typing import Any

from closeup_ns.paths.geometry import vertical_fov
from closeup_ns.paths.options import PlannedPath
from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View

_PIECES = 24
"""Pieces between keyframes: many, since the Render tab's spline knows no easing."""


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
    chosen = sorted({round(share * (len(frames) - 1) / _PIECES) for share in range(_PIECES + 1)})
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
