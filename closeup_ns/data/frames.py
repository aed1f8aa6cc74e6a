"""Views as nerfstudio's transforms.json. Needs no nerfstudio, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from closeup_ns.atomic import write_json
from closeup_ns.views.opengl import frame_of
from closeup_ns.views.view import View


def write_transforms(path: Path, frames: Iterable[tuple[Mapping[str, Any], View]], **extra: Any) -> None:
    """Write a transforms.json: frames of (their own keys, view), and further keys of the file."""
    listed = [{**keys, **frame_of(view)} for keys, view in frames]
    write_json(path, {"camera_model": "PINHOLE", **extra, "frames": listed})
