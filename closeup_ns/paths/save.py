"""Plan a path of any kind and write it: for `closeup-gs path` and for the viewer's button."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from closeup_ns.atomic import write_json
from closeup_ns.paths.dive import plan_dive, plan_pull_back
from closeup_ns.paths.document import camera_path
from closeup_ns.paths.options import Kind, PathOptions, PlannedPath
from closeup_ns.paths.orbit import plan_orbit
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


def plan_path(
    kind: Kind,
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: PathOptions,
    reference_distance: float | None = None,
    known: Sequence[View] = (),
) -> PlannedPath:
    """A path of any kind; see `plan_dive`, `plan_orbit` and `plan_pull_back` for the arguments and errors."""
    if kind == "orbit":
        return plan_orbit(start, target, render, options, reference_distance, known)
    plan = plan_dive if kind == "dive" else plan_pull_back
    return plan(start, target, render, options, reference_distance)


def save_path(
    kind: Kind,
    start: View,
    target: Float[Tensor, "3"],
    render: Renderer,
    options: PathOptions,
    file: Path,
    *,
    reference_distance: float | None = None,
    known: Sequence[View] = (),
    fps: float = 30.0,
    long_side: int = 0,
) -> PlannedPath:
    """Plan a path and write it as nerfstudio's camera_path.json, whole or not at all; see `plan_path`, `camera_path`.

    nerfstudio's own Render tab lists what lies in ``DATA/camera_paths``.

    Raises:
        PlanningError: there is no such path; the message is one line for the user, and no file was written.
        DiskError: the file cannot be written.
    """
    path = plan_path(kind, start, target, render, options, reference_distance, known)
    write_json(file, camera_path(path, fps, long_side))
    return path
