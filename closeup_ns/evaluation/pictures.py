"""Renders and photographs as 8-bit pictures on disk. Scores are computed from these files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from closeup_ns.data.eval_cameras import EvalCamera
from closeup_ns.data.images import image_size, open_image
from closeup_ns.data.pictures import write_picture
from closeup_ns.errors import DataError
from closeup_ns.views.rendered import Renderer

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Of pictures that other systems may have rendered, best first."""


def read_picture(path: Path) -> UInt8[Tensor, "H W 3"]:
    """A picture file as RGB. DataError where it is missing or damaged."""
    with open_image(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


def render_cameras(
    render: Renderer,
    cameras: Sequence[EvalCamera],
    folder: Path,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Render every camera into ``folder``/NAME.png, except those that are there; ``advance`` is called after each.

    DataError where a render holds NaN or infinity.
    """
    for camera in cameras:
        path = folder / f"{camera.name}.png"
        if not path.is_file():
            color = render(camera.view).color
            if not torch.isfinite(color).all():
                bad = int((~torch.isfinite(color)).any(-1).sum())
                raise DataError(f"the render of {camera.name} has {bad} pixels that are NaN or infinite")
            write_picture(path, color)
        advance()


def clear_stale(folder: Path, config: Path) -> None:
    """Remove renders that are older than the run's latest checkpoint: they show an earlier model."""
    checkpoints = (config.parent / "nerfstudio_models").glob("step-*.ckpt")
    newest = max((path.stat().st_mtime for path in checkpoints), default=0.0)
    for picture in folder.glob("*.png") if folder.is_dir() else ():
        if picture.stat().st_mtime < newest:
            picture.unlink()


def find_renders(cameras: Sequence[EvalCamera], folder: Path) -> dict[str, Path]:
    """The picture of each camera in a folder, by name.

    DataError where some are missing, or one is of another size than its camera.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of renders")
    found: dict[str, Path] = {}
    for camera in cameras:
        for suffix in reversed(SUFFIXES):
            if (folder / f"{camera.name}{suffix}").is_file():
                found[camera.name] = folder / f"{camera.name}{suffix}"
    missing = [camera.name for camera in cameras if camera.name not in found]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise DataError(
            f"{folder} lacks renders of {len(missing)} of {len(cameras)} cameras: {shown}. A render is named like its "
            "camera in the list of cameras, with .png"
        )
    for camera in cameras:
        path = found[camera.name]
        width, height = image_size(path)
        if (width, height) != (camera.view.width, camera.view.height):
            raise DataError(
                f"{path} is {width}x{height} pixels, its camera {camera.view.width}x{camera.view.height}: render at "
                "the camera's size"
            )
    return found
