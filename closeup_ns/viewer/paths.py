"""The button that saves a camera path about the target, where nerfstudio's own Render tab finds it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from closeup_ns.atomic import write_json
from closeup_ns.errors import CloseupError, DiskError, PlanningError
from closeup_ns.paths.document import camera_path
from closeup_ns.paths.options import Kind, PathOptions
from closeup_ns.paths.plan import plan_path
from closeup_ns.paths.start import choose_start
from closeup_ns.planning.target import Target
from closeup_ns.viewer.markdown import escape
from closeup_ns.viewer.viewport import is_behind
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View

OPTIONS = PathOptions()
"""Of a saved path."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")


def path_from(
    kind: Kind,
    viewport: View | None,
    target: Target,
    names: Sequence[str],
    views: Sequence[View],
    render: Renderer,
) -> dict[str, Any]:
    """The path as nerfstudio reads it, from ``viewport``, or from the photograph that is aimed best at the target.

    PlanningError where the target is behind the viewport, or in no photograph, or there is no free way to it.
    """
    warnings: list[str] = []
    if viewport is None:
        start, warnings = choose_start(views, names, None, target.point, render)
    elif is_behind(viewport, target.point):
        raise PlanningError("the target is behind the camera: turn to it, or start from the best photograph")
    else:
        start = viewport
    path = plan_path(kind, start, target.point, render, OPTIONS, target.distance, views)
    content = camera_path(path, OPTIONS.fps)
    content["closeup"]["warnings"] = [*warnings, *target.warnings, *path.warnings]
    return content


def write_path(content: dict[str, Any], name: str, data: Path, run: Path) -> str:
    """Write a path as ``name``.json where the Render tab lists it, or in the run's folder where that is read-only.

    Returns:
        As Markdown, where it is, how close it comes, and its warnings.

    Raises:
        CloseupError: ``name`` is no file name.
        DiskError: neither folder can be written.
    """
    if not _NAME.fullmatch(name):
        raise CloseupError(f"{name!r} is no name for a path: use letters, digits, - and _")
    file, where = data / "camera_paths" / f"{name}.json", "Render tab: Load Path"
    try:
        write_json(file, content)
    except DiskError:
        file, where = run / "camera_paths" / f"{name}.json", "the data folder cannot be written: it is in the run's"
        write_json(file, content)
    closeup = content["closeup"]
    warnings = (f"⚠ {escape(warning)}" for warning in closeup["warnings"])
    return "  \n".join([f"Saved {escape(str(file))} to {closeup['zoom']:.1f}x ({where})", *warnings])
