"""`closeup-gs path`: a nerfstudio camera path that dives at the target, orbits it, or pulls back from it."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from closeup_ns.atomic import write_json
from closeup_ns.errors import CloseupError
from closeup_ns.paths.document import camera_path
from closeup_ns.paths.options import Kind, PathOptions, PlannedPath
from closeup_ns.paths.plan import plan_path
from closeup_ns.paths.start import choose_start


@dataclass
class WritePath:
    """Write a camera path around the target for ns-render: dive (through 3x, 9x, 27x), orbit, or pull-back.

    The path keeps clear of the scene's surfaces: it bends or widens around what stands in the way, or stops early and
    says so.
    """

    load_config: Path
    """config.yml of a finished run."""
    data: Path | None = None
    """The capture, where it was moved since the run was trained and does not lie beside it."""
    kind: Kind = "dive"
    """dive: from a training view at the target. orbit: around it. pull-back: from close to it back to the view."""
    output: Path = Path("camera_path.json")
    """Where to write the path. The viewer's Render tab lists what lies in DATA/camera_paths."""
    target: tuple[float, float, float] | None = None
    """Point to look at, in nerfstudio's world as the viewer shows it. Default: what the run trained for."""
    start_view: str | None = None
    """File name of the training image to start from. Default: the one that looks most squarely at the target."""
    long_side: int = 0
    """Pixels on the longer side of the video; 0 takes the training image's own size."""
    options: Annotated[PathOptions, tyro.conf.arg(name="")] = field(default_factory=PathOptions)
    """How the camera moves."""

    def main(self) -> None:
        """Load the run, plan the path, write it, and print the command that renders it."""
        if self.long_side < 0:
            raise CloseupError(f"--long-side {self.long_side} is no size: pixels, or 0 for the training image's own")
        from closeup_ns.studio.loading import load_run

        run = load_run(self.load_config, data=self.data)
        target = run.target
        if self.target is not None:
            from closeup_ns.planning.target import target_from_xyz

            target = target_from_xyz(self.target, run.train_views, run.renderer)
        start, notes = choose_start(run.train_views, run.train_names, self.start_view, target.point, run.renderer)
        path = plan_path(
            self.kind, start, target.point, run.renderer, self.options, target.distance, known=run.train_views
        )
        write_json(self.output, camera_path(path, self.options.fps, self.long_side))
        for warning in [*target.warnings, *notes, *path.warnings]:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"{self.output}: {described(path)}. Render it with:")
        print(render_command(self.load_config, self.output))


def render_command(config: Path, path: Path) -> str:
    """The command that renders a path, to be pasted into a shell: names may have blanks."""
    command = ["ns-render", "camera-path", "--load-config", config, "--camera-path-filename", path]
    return shlex.join([*map(str, command), "--output-path", str(path.with_suffix(".mp4"))])


def described(path: PlannedPath) -> str:
    """A path as a short text: its frames, and how close it comes or how far around it goes."""
    frames = f"{len(path.views)} frames"
    if path.kind == "orbit":
        return f"{frames} over {path.sweep:.0f} degrees at {path.zoom:.1f}x"
    return f"{frames} {'from' if path.kind == 'pull-back' else 'to'} {path.zoom:.1f}x"
