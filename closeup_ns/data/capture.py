"""What every kind of capture folder is read into, before nerfstudio's conventions are applied."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nerfstudio.cameras.cameras import CameraType

from closeup_ns.data.lenses import LENS_KINDS, PARAMETERS, folds
from closeup_ns.errors import DataError
from closeup_ns.views.view import LONGEST_SIDE

COLMAP_TO_NERFSTUDIO = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""[4, 4] world transform of nerfstudio's own COLMAP parser: COLMAP guesses gravity along -y, nerfstudio's up is +z."""

ORTHONORMAL_TOLERANCE = 1e-2
LONGEST_NAME = 255
"""Bytes of a file's name on every common file system."""
LARGEST_NUMBER = 1e12
"""Beyond this a number in a file is damage, and what is computed from it in float32 would be infinite."""
FOCAL_RANGE = (0.01, 1000.0)
"""In long sides of the photograph: beyond these a focal length is damage."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole or fisheye camera, calibrated for photographs of ``width`` x ``height`` pixels.

    Focal lengths and principal point are in pixels of that size, pixel centres at +0.5. ``distortion`` is in
    nerfstudio's order (k1, k2, k3, k4, p1, p2).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = (0.0,) * 6
    camera_type: CameraType = CameraType.PERSPECTIVE

    def check(self, where: str) -> Intrinsics:
        """Return self; raise DataError when no camera has such numbers, or its photographs cannot be undistorted."""
        long = max(self.width, self.height)
        possible = (
            min(self.width, self.height) >= 1
            and long <= LONGEST_SIDE
            and all(FOCAL_RANGE[0] * long <= focal <= FOCAL_RANGE[1] * long for focal in (self.fx, self.fy))
            and all(abs(centre) <= 10 * long for centre in (self.cx, self.cy))  # false for NaN, as the others
        )
        if not possible or not (np.abs(self.distortion) < LARGEST_NUMBER).all():
            raise DataError(
                f"{where}: the camera intrinsics are not usable (size {self.width}x{self.height}, focal {self.fx}, "
                f"{self.fy}, centre {self.cx}, {self.cy}). Export the cameras again."
            )
        self._check_lens(where)
        return self

    def _check_lens(self, where: str) -> None:
        kind, distortion = self.camera_type, self.distortion
        if kind not in PARAMETERS:
            raise DataError(
                f"{where}: a camera of the kind {kind.name} cannot be trained on, only pinhole and fisheye ones. Cut "
                "its pictures into pinhole views; for panoramas 'ns-process-data images --camera-type equirectangular' "
                "does that."
            )
        if not any(distortion):
            return
        if len(distortion) != PARAMETERS[kind]:
            raise DataError(
                f"{where}: {len(distortion)} distortion parameters; {kind.name} has {PARAMETERS[kind]}. Correct "
                "distortion_params, or give k1, k2, ... by their names."
            )
        if kind is CameraType.PERSPECTIVE and distortion[3]:
            raise DataError(
                f"{where}: k4 is {distortion[3]:g}, and a pinhole lens with a k4 cannot be undistorted here. Set it to "
                "0 if that changes little, say camera_model OPENCV_FISHEYE if it is a fisheye lens's, or undistort the "
                "capture with 'colmap image_undistorter'."
            )
        lens = (self.fx, self.fy, self.cx, self.cy)
        if len(distortion) == 6 and folds(LENS_KINDS[kind], distortion, (self.width, self.height), lens):
            raise DataError(
                f"{where}: the lens distortion ({', '.join(f'{value:g}' for value in distortion)}) folds the image, so "
                "that one pixel shows two directions. The calibration failed, or its parameters are in another order: "
                "calibrate again with fewer parameters, or undistort the capture with 'colmap image_undistorter'."
            )


@dataclass(frozen=True)
class PointCloud:
    """Sparse points: ``xyz`` [N, 3] float64 in the capture's saved world frame, ``rgb`` [N, 3] uint8."""

    xyz: npt.NDArray[np.float64]
    rgb: npt.NDArray[np.uint8]
    source: str = ""

    def transformed(self, transform: npt.NDArray[np.float64]) -> PointCloud:
        """The same points under an affine ``transform`` [3 or 4, 4]."""
        return PointCloud(self.xyz @ transform[:3, :3].T + transform[:3, 3], self.rgb, self.source)

    def only(self, keep: npt.NDArray[np.bool_]) -> PointCloud:
        """The points where ``keep`` [N] is true."""
        return PointCloud(self.xyz[keep], self.rgb[keep], self.source)

    def finite(self) -> PointCloud:
        """The points without those that have a NaN or infinite coordinate."""
        return self.only((np.abs(self.xyz) < LARGEST_NUMBER).all(axis=1))


@dataclass(frozen=True)
class Frame:
    """One photograph's camera. ``c2w`` is [4, 4] float64, OpenGL axes (x right, y up, z back), saved world frame."""

    c2w: npt.NDArray[np.float64]
    intrinsics: Intrinsics
    mask: Path | None = None
    bounds: tuple[float, float] | None = None
    """Nearest and farthest scene depth seen from here, in units of the saved world frame (LLFF only)."""


@dataclass
class Capture:
    """A capture folder, read and checked, in the order of its sorted image names."""

    kind: str
    """In words, for the log line: "LLFF", "transforms.json" or "COLMAP"."""
    root: Path
    """The folder that no path of the capture leaves."""
    frames: list[Frame]
    image_sets: dict[int, list[Path]]
    """Downscale factor -> one image file per frame, for every complete set of images that the folder has."""
    names: list[str] = field(default_factory=list)
    """What each photograph is called below images/ (``left/a.jpg``); empty where nothing tells."""
    points: PointCloud | None = None
    applied_transform: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    """[4, 4] from the original data's world (COLMAP's) to the saved world frame."""
    applied_scale: float = 1.0
    orientation_method: str | None = None
    """Overrides the config's orientation method, where the capture says so."""
    splits: dict[str, set[int]] = field(default_factory=dict)
    """Split -> the frames that the capture itself assigns to it."""
    fisheye_crop_radius: float | None = None
    default_split: str = "interval"
    """"interval" (every n-th is held out) or "fraction" (nerfstudio's usual), where the capture has no lists."""
    notes: list[str] = field(default_factory=list)
    """Things the user should know, one sentence each."""


def safe_path(root: Path, name: str | Path, source: Path | str) -> Path:
    """``root / name``, or DataError when that leaves ``root`` or can be no file's name.

    The check is lexical: a link that the user put into the folder is the user's own doing, while a name that comes
    out of a data file never gets to point elsewhere.
    """
    if not _can_exist(str(name)):
        raise DataError(f"{source} names the file {str(name)!r:.60}, which no file can be called. Export it again.")
    base = os.path.abspath(root)
    joined = os.path.normpath(os.path.join(base, str(name)))
    if os.path.commonpath([base, joined]) != base:
        raise DataError(
            f"{source} names the file {str(name)!r}, which is outside of the data folder {root}. Move the file into "
            "the folder and make the name relative to it."
        )
    return Path(root) / os.path.relpath(joined, base)


def _can_exist(name: str) -> bool:
    try:
        return "\0" not in name and all(len(part.encode()) <= LONGEST_NAME for part in Path(name).parts)
    except UnicodeEncodeError:  # JSON may hold half a character
        return False


def check_pose(c2w: npt.NDArray[np.float64], where: str) -> npt.NDArray[np.float64]:
    """Return a camera-to-world matrix as [4, 4] float64; DataError unless it is a finite rigid transform."""
    if c2w.shape not in ((3, 4), (4, 4)):
        raise DataError(f"{where}: the camera pose has shape {c2w.shape}, not 4x4 (or 3x4). Export the cameras again.")
    if not (np.abs(c2w) < LARGEST_NUMBER).all():  # false for NaN, too
        raise DataError(f"{where}: the camera pose holds NaN or infinity. Remove this image or export again.")
    rotation = c2w[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > ORTHONORMAL_TOLERANCE or np.linalg.det(rotation) < 0:
        raise DataError(
            f"{where}: the 3x3 part of the camera pose is not a rotation. The axes may be in another order, mirrored "
            "or scaled; the pose must be a rigid camera-to-world transform with OpenGL axes."
        )
    full = np.eye(4)
    full[:3] = c2w[:3]
    return full
