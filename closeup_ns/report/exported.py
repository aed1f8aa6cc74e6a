"""An exported scene as a web page: SuperSplat's viewer with the scene in it, which splat-transform (npm, MIT) writes.

The page opens from disk, without a server or network, and may be sent to others. It holds the scene compressed.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jaxtyping import Float
from torch import Tensor

from closeup_ns.views.view import View

COMMAND = ("npx", "@playcanvas/splat-transform@3", "--overwrite", "--gpu", "cpu", "--filter-harmonics", "0")
"""Seconds anywhere; colours are then the same from every side, for whose variation it takes hours without a GPU."""
UPRIGHT = "-90,0,0"
"""Degrees about x, y, z that splat-transform turns a run's scene by, so that its z axis is the viewer's y axis, up."""


@dataclass(frozen=True)
class Exported:
    """A .ply that `closeup-gs export` wrote into a run's folder."""

    name: str
    page: str | None
    """Relative URL of the web page beside it, where there is one."""
    command: str
    """What writes that page."""


def exported_scenes(folder: Path, report: Path) -> Iterator[Exported]:
    """Those in a run's ``folder`` that have settings for a page, for a ``report`` that links to it."""
    for settings in sorted(folder.glob("splat-*.json")):
        splat, page = settings.with_suffix(".ply"), settings.with_suffix(".html")
        link = quote(os.path.relpath(page, report.parent)) + "?aa" * (splat.stem != "splat-classic")
        yield Exported(splat.name, link if page.is_file() else None, page_command(splat))


def page_command(splat: Path) -> str:
    """The command that writes the page beside a .ply and its settings, to be pasted into a shell; it needs no GPU."""
    settings, page = splat.with_suffix(".json"), splat.with_suffix(".html")
    parts = [*COMMAND, "--viewer-settings", settings, splat, f"--rotate={UPRIGHT}", page]
    return shlex.join(map(str, parts))


def page_settings(view: View, target: Float[Tensor, "3"], background: Float[Tensor, "3"]) -> dict[str, Any]:
    """The viewer's settings.json: it opens from ``view``'s place, looks at ``target``, and turns around it.

    Args:
        target: world coordinates.
    """
    tangents = (view.width / 2 / float(view.K[0, 0]), view.height / 2 / float(view.K[1, 1]))
    camera = {
        "fov": math.degrees(2 * math.atan(max(tangents))),
        "position": _in_viewer(view.position),
        "target": _in_viewer(target),
        "startAnim": "none",
    }
    return {"camera": camera, "background": {"color": background.tolist()}, "animTracks": []}


def _in_viewer(point: Float[Tensor, "3"]) -> list[float]:
    """The viewer turns a .ply by half a turn about z, and then comes `UPRIGHT`."""
    x, y, z = point.tolist()
    return [-x, z, y]
