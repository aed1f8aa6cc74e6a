"""Which lenses can be trained on: those that nerfstudio's datamanager turns into pinhole photographs.

It (1.1.5) checks with bare assertions, lets every other kind of camera through as a pinhole, and takes a fisheye
photograph without distortion parameters for one, too.
"""

from __future__ import annotations

from nerfstudio.cameras.cameras import CameraType

from closeup_ns.errors import DataError

PARAMETERS = {CameraType.PERSPECTIVE: 6, CameraType.FISHEYE: 6, CameraType.FISHEYE624: 12}
"""Distortion parameters that undistortion reads; k1, k2, k3, k4, p1, p2 where there are six."""
UNNOTICED = 1e-9
"""A k1 that moves nothing by more than a billionth of the focal length, and is not zero."""


def check_lens(camera_type: CameraType, distortion: tuple[float, ...], where: str) -> None:
    """DataError for a camera whose photographs cannot be made pinhole photographs."""
    if camera_type not in PARAMETERS:
        raise DataError(
            f"{where}: a camera of the kind {camera_type.name} cannot be trained on, only pinhole and fisheye ones. "
            "Cut its pictures into pinhole views; for panoramas 'ns-process-data images --camera-type equirectangular' "
            "does that."
        )
    wanted = PARAMETERS[camera_type]
    if any(distortion) and len(distortion) != wanted:
        raise DataError(
            f"{where}: {len(distortion)} distortion parameters; {camera_type.name} has {wanted}. Correct "
            "distortion_params, or give k1, k2, ... by their names."
        )
    if camera_type is CameraType.PERSPECTIVE and len(distortion) > 3 and distortion[3]:
        raise DataError(
            f"{where}: k4 is {distortion[3]:g}, and a pinhole lens with a k4 cannot be undistorted here. Set it to 0 "
            "if that changes little, say camera_model OPENCV_FISHEYE if it is a fisheye lens's, or undistort the "
            "capture with 'colmap image_undistorter'."
        )


def noticed(camera_type: CameraType, distortion: tuple[float, ...]) -> tuple[float, ...]:
    """``distortion`` so that nerfstudio undistorts a fisheye photograph also where all its parameters are zero."""
    if camera_type is CameraType.FISHEYE and not any(distortion):
        return (UNNOTICED, *distortion[1:])
    return distortion
