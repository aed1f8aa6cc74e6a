"""Which lenses can be trained on: those that nerfstudio's datamanager turns into pinhole photographs.

It (1.1.5) checks with bare assertions, lets every other kind of camera through as a pinhole, takes a fisheye
photograph without distortion parameters for one, too, and undistorts by calibrations that fold the image.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from nerfstudio.cameras.cameras import CameraType
from torch.func import jacfwd, vmap

from closeup_ns.views.lens import Lens, LensKind

Pinhole = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels."""
LENS_KINDS: dict[CameraType, LensKind] = {
    CameraType.PERSPECTIVE: "perspective",
    CameraType.FISHEYE: "fisheye",
    CameraType.FISHEYE624: "fisheye624",
}
PARAMETERS = {CameraType.PERSPECTIVE: 6, CameraType.FISHEYE: 6, CameraType.FISHEYE624: 12}
"""Distortion parameters that undistortion reads; k1, k2, k3, k4, p1, p2 where there are six."""
UNNOTICED = 1e-9
"""A k1 that moves nothing by more than a billionth of the focal length, and is not zero."""
STEPS = 600
"""Samples of the distortion along each direction, outwards from the optical axis."""


@cache
def folds(kind: LensKind, distortion: tuple[float, ...], size: tuple[int, int], lens: Pinhole) -> bool:
    """Whether distortion stops being one-to-one inside the image.

    From the optical axis outwards, towards points all along the border, the determinant of the distortion's derivative
    must stay positive until the image ends. Of a fisheye lens towards the middle of each side only, since the corners
    often lie outside of the image circle, and up to 90 degrees, beyond which no pinhole sees.
    """
    fisheye = kind == "fisheye"
    angle = np.arange(4) * np.pi / 2 if fisheye else _border_angles(size, lens)
    reach = np.tan(np.linspace(0, np.pi / 2, STEPS + 1)[1:]) if fisheye else np.geomspace(1e-3, 1e3, STEPS)
    rays = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], 1)) * torch.from_numpy(reach)[:, None, None]
    distort = Lens(kind, distortion).distort
    pixels = distort(rays) * rays.new_tensor(lens[:2]) + rays.new_tensor(lens[2:])
    outside = ((pixels < 0) | (pixels > rays.new_tensor(size))).any(-1)
    folded = torch.linalg.det(vmap(jacfwd(distort))(rays.flatten(0, 1))).reshape(outside.shape) <= 0
    return bool((_first(folded.numpy()) < _first(outside.numpy())).any())


def _border_angles(size: tuple[int, int], lens: Pinhole) -> npt.NDArray[np.float64]:
    """Directions from the optical axis to points along the border, the corners among them."""
    along = np.linspace(0, 1, 16)
    start, end = np.zeros(16), np.ones(16)
    x, y = np.concatenate([along, along, start, end]), np.concatenate([start, end, along, along])
    return np.arctan2((y * size[1] - lens[3]) / lens[1], (x * size[0] - lens[2]) / lens[0])


def _first(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Index of the first True along axis 0; `STEPS` where there is none."""
    return np.where(mask.any(0), mask.argmax(0), STEPS)


def noticed(camera_type: CameraType, distortion: tuple[float, ...]) -> tuple[float, ...]:
    """``distortion`` so that nerfstudio undistorts a fisheye photograph also where all its parameters are zero."""
    if camera_type is CameraType.FISHEYE and not any(distortion):
        return (UNNOTICED, *distortion[1:])
    return distortion
