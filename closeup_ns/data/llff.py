"""LLFF captures: poses_bounds.npy, with what many copies lack (images/, images.bin) used where it is there.

A row of poses_bounds.npy is a 3x5 matrix and near, far. The 3x5 matrix is [R | t | (h, w, f)] in the world frame of
the COLMAP reconstruction it was made from; the columns of R are the camera's down, right and back axes
(Mildenhall et al. 2019, https://github.com/Fyusion/LLFF, "Using your own poses without running COLMAP").
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from closeup_ns.data.capture import COLMAP_TO_NERFSTUDIO, LARGEST_NUMBER, Capture, Frame, Intrinsics, check_pose
from closeup_ns.data.colmap import find_masks, find_models, largest_model, read_cameras, read_points
from closeup_ns.data.images import complete_sets, image_folders, list_images
from closeup_ns.errors import DataError
from closeup_ns.reading import reading

POSES_FILE = "poses_bounds.npy"
FOCAL_TOLERANCE = 0.01


def read_llff(root: Path, masks_path: Path | None) -> Capture:
    """Read an LLFF capture.

    Args:
        root: holds poses_bounds.npy, images/ and/or images_N/, and possibly sparse/0.
        masks_path: folder of masks relative to ``root``, named like the images with the suffix .png.
    """
    rows = read_poses_bounds(root / POSES_FILE)
    notes: list[str] = []
    models = find_models(root, ["cameras"]) or [root / "sparse/0"]
    model, registered = largest_model(models, notes)
    names = [image.name for image in registered] if len(registered) == len(rows) else []
    sets = _image_sets(root, len(rows), names)
    cameras = read_cameras(model)
    only = next(iter(cameras.values())) if len(cameras) == 1 else None
    calibrated = [cameras.get(image.camera_id) for image in registered] if names else [only] * len(rows)
    masks = find_masks(root, masks_path, names or [path.name for path in next(iter(sets.values()))])
    frames = []
    for index, row in enumerate(rows):
        where = f"{root / POSES_FILE}, row {index}"
        intrinsics = _intrinsics(row, calibrated[index], where, notes)
        frames.append(Frame(_pose(row, where), intrinsics, masks[index], (float(row[15]), float(row[16]))))
    return Capture(
        kind="LLFF",
        root=root,
        frames=frames,
        image_sets=sets,
        names=names,
        points=read_points(model),
        applied_transform=COLMAP_TO_NERFSTUDIO,
        notes=list(dict.fromkeys(notes)),
    )


def read_poses_bounds(path: Path) -> npt.NDArray[np.float64]:
    """The rows [N, 17] of a poses_bounds.npy: 3x5 [R | t | (h, w, f)] row-major, then near and far.

    Raises:
        DataError: not an array, wrong shape, NaN, or bounds that are not 0 < near < far.
    """
    with reading(path, "Copy it again, or run LLFF's imgs2poses.py."):
        rows = np.load(path, allow_pickle=False)
        if rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind not in "fiu":
            raise ValueError(f"an array of shape {rows.shape}, not of [images, 17] numbers")
    rows = rows.astype(np.float64)
    bad = np.flatnonzero(~(np.abs(rows) < LARGEST_NUMBER).all(axis=1))
    if len(bad):
        raise DataError(f"{path}: row {bad[0]} holds NaN or infinity ({len(bad)} such rows). Run imgs2poses.py again.")
    bad = np.flatnonzero((rows[:, 15] <= 0) | (rows[:, 16] <= rows[:, 15]))
    if len(bad):
        near, far = rows[bad[0], 15:]
        raise DataError(f"{path}: row {bad[0]} has the depth bounds {near:g}, {far:g}; needed is 0 < near < far.")
    return rows


def _pose(row: npt.NDArray[np.float64], where: str) -> npt.NDArray[np.float64]:
    """[4, 4] camera-to-world with OpenGL axes, in nerfstudio's world frame, of one row of poses_bounds.npy."""
    down, right, back, position, _ = row[:15].reshape(3, 5).T
    return COLMAP_TO_NERFSTUDIO @ check_pose(np.stack([right, -down, back, position], axis=1), where)


def _intrinsics(
    row: npt.NDArray[np.float64], calibrated: Intrinsics | None, where: str, notes: list[str]
) -> Intrinsics:
    """The camera of one row: COLMAP's, with its distortion, where it is the same camera; else (h, w, f) alone."""
    height, width, focal = row[:15].reshape(3, 5)[:, 4]
    plain = Intrinsics(round(width), round(height), focal, focal, width / 2, height / 2).check(where)
    if calibrated is None:
        return plain
    if (calibrated.width, calibrated.height) == (plain.width, plain.height) and abs(
        calibrated.fx / focal - 1
    ) < FOCAL_TOLERANCE:
        return calibrated
    notes.append(f"COLMAP's camera is not the one of {POSES_FILE} and is not used: lens distortion is unknown")
    return plain


def _image_sets(root: Path, count: int, names: list[str]) -> dict[int, list[Path]]:
    """Every complete set of ``count`` images; ``names`` are those that COLMAP registered, where that is known."""
    sets = complete_sets(root, names, count)
    if not sets:
        counts = {folder.name: len(list_images(folder)) for folder in image_folders(root).values()}
        if not any(counts.values()):
            raise DataError(f"{root} has {POSES_FILE} but no images: neither images/ nor images_N/ holds any.")
        there = ", ".join(f"{name}/ has {files}" for name, files in counts.items() if files)
        raise DataError(
            f"{root / POSES_FILE} has {count} poses, but {there} images. Each pose belongs to one image, in sorted "
            "order: restore the missing images, or run LLFF's imgs2poses.py on the images that are there."
        )
    return sets
