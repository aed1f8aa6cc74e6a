"""From the command line to a `Target`: a point, a pixel of a photograph, or the scene's own centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.data.names import find_photograph
from closeup_ns.errors import PlanningError
from closeup_ns.planning.target import Target, require_in_frame, target_automatic, target_from_pixel, target_from_xyz
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


@dataclass
class TargetConfig:
    """What the camera will come close to. With neither points nor pixels: what the photographs look at."""

    xyz: tuple[tuple[float, float, float], ...] = ()
    """One or more points in nerfstudio's world frame (as the viewer shows it), such as ``0.1 0 -0.4``."""
    pixel: tuple[str, ...] = ()
    """One or more pixels of photographs as ``NAME:COLUMN:ROW``, counted from the top left at the size trained on,
    such as ``image007.png:250:190``."""


def resolve_targets(
    config: TargetConfig, names: Sequence[str], views: Sequence[View], render: Renderer
) -> list[Target]:
    """The targets of this run, in the order they were given.

    Raises:
        PlanningError: a pixel names no photograph, lies outside it, or a target is seen by no camera.
    """
    targets = [target_from_xyz(point, views, render) for point in config.xyz]
    for text in config.pixel:
        index, column, row = _parse_pixel(text, names, views)
        targets.append(target_from_pixel(views[index], column, row, render, views))
    if not targets:
        targets = [target_automatic(views, render)]
    for target in targets:
        place = ", ".join(f"{value:.3f}" for value in target.point.tolist())
        CONSOLE.print(f"Target: ({place}) from {target.source}, {target.distance:.3f} from the cameras that see it")
        for warning in target.warnings:
            CONSOLE.print(f"[yellow]Target: {escape(warning)}")
    return targets


def check_targets(config: TargetConfig, names: Sequence[str], views: Sequence[View]) -> None:
    """Find out before the training, and not after its base phase, what no training can make right.

    Raises:
        PlanningError: a pixel names no photograph or lies outside it, or a point is in nobody's image.
    """
    for text in config.pixel:
        _parse_pixel(text, names, views)
    for point in config.xyz:
        require_in_frame(torch.tensor(point), views)


def _parse_pixel(text: str, names: Sequence[str], views: Sequence[View]) -> tuple[int, float, float]:
    name, *rest = text.rsplit(":", 2)
    try:
        column, row = (float(part) for part in rest)
    except ValueError:
        raise PlanningError(
            f"--pipeline.target.pixel {text}: write it as NAME:COLUMN:ROW, e.g. {names[0]}:120:80"
        ) from None
    try:
        index = find_photograph(names, name)
    except LookupError as error:
        raise PlanningError(
            f"--pipeline.target.pixel {text} (NAME:COLUMN:ROW): of the training photographs (one that is held out "
            f"cannot be named) {error}"
        ) from None
    view = views[index]
    if not (0 <= column < view.width and 0 <= row < view.height):
        raise PlanningError(
            f"--pipeline.target.pixel {text}: {names[index]} is {view.width}x{view.height} pixels as it is trained "
            "on, and this one lies outside"
        )
    return index, column, row
