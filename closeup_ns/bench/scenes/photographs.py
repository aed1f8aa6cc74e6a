"""The photographs of a capture as every method will see them: without lens distortion, at one size, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from closeup_ns.data.capture import Frame, Intrinsics, PointCloud
from closeup_ns.data.dataparser import CloseupDataParserConfig, load_capture, split_indices
from closeup_ns.data.dataset import decode_image
from closeup_ns.data.images import capped_size
from closeup_ns.errors import DataError
from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class Photograph:
    """One photograph and its camera."""

    name: str
    """File name without folder or suffix."""
    view: View
    """float64, OpenCV axes, in the capture's frame."""
    image: NDArray[np.uint8]
    """[H, W, 3]."""


@dataclass(frozen=True, eq=False)
class LoadedCapture:
    """A whole capture."""

    photographs: list[Photograph]
    points: PointCloud | None
    test: frozenset[int] = frozenset()
    """Indices that the capture's own lists hold out; empty where it has none."""
    train: frozenset[int] = frozenset()
    """Indices that those lists train on."""


def load_photographs(data: Path, image_side: int = 0) -> LoadedCapture:
    """Read a capture of any layout that closeup-gs reads.

    Args:
        data: Its folder, or a transforms json in it.
        image_side: Longest side, in pixels: of images, images_2, ... the set that ns-train would take for it, and
            reduced to it (Lanczos) where it is larger; 0 takes the largest as it is.

    Raises:
        DataError: it cannot be read, or is taken with fisheye lenses.
    """
    config = CloseupDataParserConfig(data=data, max_image_size=image_side or None)
    capture, images = load_capture(config)
    photographs = [
        _photograph(frame, path, image_side) for frame, path in zip(capture.frames, images.paths, strict=True)
    ]
    splits = ("test", "train") if capture.splits else ()
    listed = {split: frozenset(split_indices(config, capture, split)) for split in splits}
    return LoadedCapture(photographs, capture.points, **listed)


def _photograph(frame: Frame, path: Path, image_side: int) -> Photograph:
    image, K = undistort(decode_image(path)[..., :3], frame.intrinsics, str(path))
    height, width = image.shape[:2]
    size = capped_size((width, height), image_side or None)
    if size != (width, height):
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    view = View(torch.from_numpy(K), torch.from_numpy(flipped(frame.c2w)), width, height)
    return Photograph(path.stem, view.scaled_to(image.shape[1], image.shape[0]), image)


def undistort(image: NDArray[np.uint8], lens: Intrinsics, where: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """``image`` through an ideal pinhole, cropped to what is known, and its K [3, 3] (pixel centres at +0.5).

    By nerfstudio's own routine, so that the photographs are those that its splatting methods train on.

    Raises:
        DataError: the lens is a fisheye.
    """
    from nerfstudio.cameras.cameras import Cameras, CameraType
    from nerfstudio.data.datamanagers.full_images_datamanager import _undistort_image

    if lens.camera_type != CameraType.PERSPECTIVE:
        raise DataError(f"{where} was taken with a fisheye lens; protocols need perspective photographs")
    height, width = image.shape[:2]
    sx, sy = width / lens.width, height / lens.height
    K = np.array([[lens.fx * sx, 0, lens.cx * sx], [0, lens.fy * sy, lens.cy * sy], [0, 0, 1.0]])
    if not any(lens.distortion):
        return image, K
    camera = Cameras(torch.eye(4)[None, :3], lens.fx, lens.fy, lens.cx, lens.cy)
    K, undistorted, _ = _undistort_image(camera[0], np.array(lens.distortion), {}, image, K)
    return np.ascontiguousarray(undistorted), np.asarray(K, dtype=np.float64)
