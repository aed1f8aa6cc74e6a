"""`closeup-gs path`: a nerfstudio camera path that dives from a training view at the target."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from closeup_ns.atomic import write_json
from closeup_ns.errors import CloseupError
from closeup_ns.planning.dive import Dive, DiveOptions, Ease, choose_start, plan_dive, stage_frames
from closeup_ns.views.view import View


@dataclass
class CameraDive:
    """Write a camera path that dives from a training view at the target, through 3x, 9x, 27x, for ns-render.

    The path keeps clear of the scene's surfaces: the approach bends around what stands in the way, or stops early and
    says so.
    """

    load_config: Path
    """config.yml of a finished run."""
    output: Path = Path("camera_path.json")
    """Where to write the path. The viewer's Render tab lists what lies in DATA/camera_paths."""
    zoom: float = 27.0
    """How many times larger the target is at the end than the training cameras usually see it."""
    seconds: float = 8.0
    """Length of the video."""
    fps: float = 30.0
    """Frames per second."""
    target: tuple[float, float, float] | None = None
    """Point to dive at, in nerfstudio's world as the viewer shows it. Default: what the run trained for."""
    start_view: str | None = None
    """File name of the training image to start from. Default: the one that looks most squarely at the target."""
    ease: Ease = "smooth"
    """How the dive starts and ends: at rest (smooth), less so (soft), or at one speed throughout (linear)."""
    fov: Literal["keep", "narrow"] = "keep"
    """Keep the start view's field of view, or share the magnification between approach and a narrowing lens."""
    long_side: int = 0
    """Pixels on the longer side of the video; 0 takes the training image's own size."""

    def main(self) -> None:
        """Load the run, plan the path, write it, and print the command that renders it."""
        frames = frame_count(self.seconds, self.fps)
        if not self.load_config.is_file():
            raise CloseupError(f"there is no {self.load_config}; --load-config takes the config.yml of a run")
        from closeup_ns.training.load import load_run

        run = load_run(self.load_config)
        target = run.target
        if self.target is not None:
            from closeup_ns.planning.target import target_from_xyz

            target = target_from_xyz(self.target, run.train_views, run.renderer)
        names = [Path(name).name for name in run.train_names]
        start, notes = choose_start(run.train_views, names, self.start_view, target.point, run.renderer)
        options = DiveOptions(zoom=self.zoom, frames=frames, ease=self.ease, narrow_lens=self.fov == "narrow")
        dive = plan_dive(start, target.point, run.renderer, options, target.distance)
        write_json(self.output, camera_path(dive, target.point, self.fps, self.long_side))
        for warning in [*target.warnings, *notes, *dive.warnings]:
            print(f"warning: {warning}", file=sys.stderr)
        video = self.output.with_suffix(".mp4")
        print(f"{self.output}: {frames} frames to {dive.zoom:.1f}x. Render it with:")
        print(
            f"ns-render camera-path --load-config {self.load_config} --camera-path-filename {self.output} "
            f"--output-path {video}"
        )


def frame_count(seconds: float, fps: float) -> int:
    """Frames of a video.

    Raises:
        CloseupError: not two frames at least, or more than an hour's worth of anything reasonable.
    """
    product = seconds * fps
    if not (math.isfinite(product) and seconds > 0 and fps > 0 and 2 <= round(product) <= 100_000):
        raise CloseupError(f"--seconds {seconds:g} at --fps {fps:g} makes no video of 2 to 100000 frames")
    return round(product)


def camera_path(dive: Dive, target: Float[Tensor, "3"], fps: float, long_side: int = 0) -> dict[str, Any]:
    """The path as nerfstudio's ns-render and the viewer's Render tab read it (see research/nerfstudio.md, 1.7).

    Poses are OpenGL camera-to-world in nerfstudio's world. nerfstudio puts the principal point at the image's centre.
    Width and height are even, which H.264 asks for.
    """
    first = dive.views[0]
    factor = long_side / max(first.width, first.height) if long_side > 0 else 1.0
    width, height = (max(2, round(side * factor) // 2 * 2) for side in (first.width, first.height))
    frames = [_frame(view) | {"aspect": width / height} for view in dive.views]
    stages = stage_frames(dive.views, target)
    keyframes = []
    for position, index in enumerate(stages):
        since = index - stages[position - 1] if position else 0
        frame = frames[index]
        keyframes.append(
            {
                "matrix": frame["camera_to_world"],
                "fov": frame["fov"],
                "aspect": frame["aspect"],
                "override_transition_enabled": position > 0,
                "override_transition_sec": since / fps if position else None,
            }
        )
    return {
        "camera_type": "perspective",
        "render_width": width,
        "render_height": height,
        "fps": fps,
        "seconds": len(frames) / fps,
        "is_cycle": False,
        "smoothness_value": 0.0,
        "default_fov": frames[0]["fov"],
        "default_transition_sec": len(frames) / fps / max(1, len(stages) - 1),
        "keyframes": keyframes,
        "camera_path": frames,
        "closeup": {
            "target": target.tolist(),
            "zoom": dive.zoom,
            "bend_degrees": dive.bend,
            "warnings": list(dive.warnings),
        },
    }


def _frame(view: View) -> dict[str, Any]:
    opengl = view.c2w.double() * view.c2w.new_tensor([1.0, -1.0, -1.0, 1.0]).double()
    fov = 2.0 * math.degrees(math.atan(view.height / (2.0 * float(view.K[1, 1]))))
    return {"camera_to_world": opengl.flatten().tolist(), "fov": fov}
