"""The dataparser of closeup-gs: LLFF folders, transforms.json and COLMAP folders, with no flag to tell them apart.

This module must not import ``nerfstudio.configs.*``: those modules import every registered dataparser.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.cameras import camera_utils
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.data.utils.dataparsers_utils import get_train_eval_split_fraction, get_train_eval_split_interval
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from closeup_ns.data.capture import Capture
from closeup_ns.data.colmap import MODEL_FOLDERS, find_models, read_colmap
from closeup_ns.data.images import (
    ImageChoice,
    check_aspect,
    choose_images,
    downscaled_twin,
    exif_orientation,
    exposure_stops,
    image_size,
)
from closeup_ns.data.lenses import noticed
from closeup_ns.data.llff import POSES_FILE, read_llff
from closeup_ns.data.originals import Original, describe_originals, find_originals, finest_files
from closeup_ns.data.transforms import read_transforms
from closeup_ns.errors import DataError

BLENDER_FILE = "transforms_train.json"
ONE_PLACE = 1e-9
"""Cameras closer together than this share of their coordinates are in one place: the rest is rounding."""
STRAY = 50.0
"""A point farther out than this many times the 90% quantile of a cloud's distances is left out."""
REMOTE = 1000.0
"""Cameras whose coordinates are so many times larger than the room between them are centred before float32."""


@dataclass
class CloseupDataParserConfig(DataParserConfig):
    """LLFF, transforms.json and COLMAP captures, recognised by themselves"""

    _target: type = field(default_factory=lambda: CloseupDataParser)
    """target class to instantiate"""
    data: Path = Path()
    """Folder of the capture: with a transforms.json, else poses_bounds.npy (LLFF), else a COLMAP model in sparse/. Or a
    transforms json file in it."""
    downscale_factor: int | None = None
    """Use images_N, or shrink by N when there is none. Not set: what comes closest to max_image_size from below."""
    max_image_size: int | None = 1600
    """Longest image side in pixels when downscale_factor is not set. A folder images_N within 1.5 times of it is used
    as it is; else larger images are shrunk to it when loaded. None: no limit."""
    train_on_all: bool = False
    """Train on the held-out images too. They stay the evaluation images, whose metrics then mean little."""
    eval_interval: int = 8
    """LLFF and COLMAP: every n-th image by sorted name is held out."""
    train_split_fraction: float = 0.9
    """transforms.json without lists of file names: share of the images to train on."""
    orientation_method: Literal["pca", "up", "vertical", "none"] = "up"
    """How to orient the world, as in nerfstudio."""
    center_method: Literal["poses", "focus", "none"] = "poses"
    """Where to put the origin, as in nerfstudio."""
    auto_scale_poses: bool = True
    """Scale the cameras' positions into the box of +/- 1."""
    masks_path: Path | None = None
    """LLFF and COLMAP: folder of masks below the data folder; <image name>.png, bright (or where nothing is, non-zero)
    where a pixel counts."""


@dataclass
class CloseupDataParser(DataParser):
    """Reads a capture once and hands out its splits."""

    config: CloseupDataParserConfig
    downscale_factor: int | None = None
    """Set by nerfstudio's datamanager to skip opening images; headers are cheap, so it is not used."""

    def __init__(self, config: CloseupDataParserConfig) -> None:
        super().__init__(config=config)
        self._loaded: tuple[Capture, ImageChoice] | None = None
        self._originals: list[Original | None] = []
        self._stops: list[float | None] = []

    def _generate_dataparser_outputs(self, split: str = "train", **_: Any) -> DataparserOutputs:
        """Cameras, image files and seed points of one split ("train", "val" or "test"), in nerfstudio's world frame.

        ``metadata`` holds the sparse points as nerfstudio's own parsers give them, per image ``originals`` (an
        `Original` or None) and ``exposure_stops`` (as EXIF tells it, or None), and for an LLFF capture ``bounds``
        [images, 2]: the nearest and farthest scene depth per image, in units of the transformed world.

        Raises:
            DataError: the capture is not there, not recognised, damaged or inconsistent.
        """
        if self._loaded is None:
            self._loaded = load_capture(self.config)
            finest, problems = finest_files(self._loaded[0])
            self._originals, unusable = find_originals(*self._loaded, finest)
            self._stops = [exposure_stops(path) for path in finest]
            _report(self.config, *self._loaded, describe_originals(self._originals))
            for problem in problems + unusable:
                CONSOLE.print(escape(f"Note: {problem}"), style="yellow", soft_wrap=True)
        capture, images = self._loaded
        poses, transform = _oriented(self.config, capture)
        scale = 1.0
        if self.config.auto_scale_poses and not in_one_place(capture):
            scale /= float(poses[:, :3, 3].abs().max())
        poses[:, :3, 3] *= scale

        indices = split_indices(self.config, capture, split)
        return DataparserOutputs(
            image_filenames=[images.paths[i] for i in indices],
            cameras=_cameras(capture, images, poses, indices),
            scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])),
            mask_filenames=_mask_files(capture, images, indices),
            dataparser_scale=scale * capture.applied_scale,
            # From the original data's world to nerfstudio's, before scaling.
            dataparser_transform=(transform @ torch.from_numpy(capture.applied_transform)).float(),
            metadata={
                **_metadata(capture, indices, transform, scale),
                "originals": [self._originals[i] for i in indices],
                "exposure_stops": [self._stops[i] for i in indices],
            },
        )


def read_capture(data: Path, masks_path: Path | None) -> Capture:
    """Read the capture in the folder, or of the json file, ``data``."""
    if data.suffix.lower() == ".json":
        if not data.is_file():
            raise DataError(f"The file {data} does not exist. Check --data.")
        return read_transforms(data)
    if not data.is_dir():
        raise DataError(f"The folder {data} does not exist. Check --data.")
    if (data / "transforms.json").is_file():
        return read_transforms(data / "transforms.json")
    if (data / POSES_FILE).is_file():
        return read_llff(data, masks_path)
    if find_models(data):
        return read_colmap(data, masks_path)
    if (data / BLENDER_FILE).is_file():
        raise DataError(
            f"{data} is laid out like Blender's synthetic scenes ({BLENDER_FILE}): end the command with blender-data, "
            f"the parser for those, as in 'ns-train closeup-gs --data {data} blender-data'."
        )
    models = " or ".join(f"{folder}/0, {folder}/1, ..., {folder}" for folder in MODEL_FOLDERS)
    there = ", ".join(sorted(path.name + "/" * path.is_dir() for path in data.iterdir())[:10]) or "nothing"
    raise DataError(
        f"{data} is no capture that can be read. Looked for: transforms.json; {POSES_FILE}; cameras.bin and images.bin "
        f"(or .txt) in {models}. There is: {there}. Give --data the folder that holds one of them, or make one with "
        "'ns-process-data images'."
    )


def load_capture(config: CloseupDataParserConfig) -> tuple[Capture, ImageChoice]:
    """Read and check the whole capture, image headers included."""
    data = Path(config.data)
    capture = read_capture(data, config.masks_path)
    if len(capture.frames) < 2:
        raise DataError(f"{data} has a single image. At least two are needed, from different places; ten is sensible.")
    full_sizes = [(frame.intrinsics.width, frame.intrinsics.height) for frame in capture.frames]
    images = choose_images(capture.image_sets, full_sizes, config.downscale_factor, config.max_image_size)
    for path, file_size, full_size in zip(images.paths, images.file_sizes, full_sizes, strict=True):
        check_aspect(file_size, full_size, path)
    _check_masks(capture, images)
    _leave_strays_out(capture)
    capture.notes += _warnings(capture, images)
    return capture, images


def _leave_strays_out(capture: Capture) -> None:
    """Drop sparse points absurdly far from the cameras, and say how many: mismatches, whose Gaussians fill the scene.

    A Gaussian starts as large as the distance to its neighbours, so a lone point far out covers every image.
    """
    if capture.points is None:
        return
    center = np.mean([frame.c2w[:3, 3] for frame in capture.frames], axis=0)
    distance = np.linalg.norm(capture.points.xyz - center, axis=1)
    near = distance <= STRAY * np.quantile(distance, 0.9)
    if not near.all():
        capture.notes.append(f"{(~near).sum()} sparse points are far out of the scene and are left out")
        capture.points = capture.points.only(near)


def in_one_place(capture: Capture) -> bool:
    """Whether the cameras only turn: where they stand is the same but for rounding."""
    centers = np.stack([frame.c2w[:3, 3] for frame in capture.frames])
    return bool(np.ptp(centers, axis=0).max() <= ONE_PLACE * np.abs(centers).max())


def _warnings(capture: Capture, images: ImageChoice) -> list[str]:
    """What a user should know of a capture that can be read, one sentence each."""
    notes = []
    if in_one_place(capture):
        notes.append(
            "all cameras stand in one place and only turn, so nothing tells how far away things are: close-ups will "
            "show a guess. Photograph the object from several places"
        )
    turned = sum(exif_orientation(path) != 1 for path in images.paths)
    if turned:
        notes.append(
            f"{turned} of {len(images.paths)} images say in their EXIF data that they are to be turned; they are "
            "trained on as they are stored, which is right where the camera poses were computed from the stored pixels"
        )
    return notes


def split_indices(config: CloseupDataParserConfig, capture: Capture, split: str) -> list[int]:
    """Positions of a split's frames, in order of image name.

    Lists in the capture itself come first; a missing "val" list is the "test" list and the other way round, a missing
    "train" list is all the rest. Otherwise every ``eval_interval``-th image is held out, or for transforms.json
    nerfstudio's fraction.
    """
    everything = list(range(len(capture.frames)))
    lists = capture.splits
    if lists:
        held_out = lists.get("val", set()) | lists.get("test", set())
        train = lists.get("train", set(everything) - held_out)
        held_out = held_out or set(everything) - train or train
        if not train:
            raise DataError(f"{capture.root}: the lists of file names leave no image to train on. Shorten the others.")
        indices = sorted(train if split == "train" else lists.get(split) or held_out)
    else:
        train_part, eval_part = get_train_eval_split_interval(everything, config.eval_interval)
        if capture.default_split == "fraction":
            fraction_train, fraction_eval = get_train_eval_split_fraction(everything, config.train_split_fraction)
            if len(fraction_eval):  # a fraction of a small capture can leave nothing to evaluate on
                train_part, eval_part = fraction_train, fraction_eval
        indices = (train_part if split == "train" else eval_part).tolist()
    return everything if split == "train" and config.train_on_all else indices


def _cameras(capture: Capture, images: ImageChoice, poses: torch.Tensor, indices: list[int]) -> Cameras:
    """Cameras as nerfstudio keeps them, at the size of the loaded images; K is scaled exactly per axis."""
    rows, distortion, types = [], [], []
    for i in indices:
        k = capture.frames[i].intrinsics
        width, height = images.sizes[i]
        sx, sy = width / k.width, height / k.height
        rows.append((k.fx * sx, k.fy * sy, k.cx * sx, k.cy * sy, width, height))
        distortion.append(noticed(k.camera_type, k.distortion))
        types.append(k.camera_type)
    if len({len(params) for params in distortion}) > 1:
        raise DataError(f"{capture.root}: the frames have different numbers of distortion parameters.")
    fx, fy, cx, cy, widths, heights = torch.tensor(rows, dtype=torch.float64)[:, :, None].unbind(1)
    metadata: dict[str, Any] = {}
    if capture.fisheye_crop_radius is not None and types[0] in (CameraType.FISHEYE, CameraType.FISHEYE624):
        width = capture.frames[indices[0]].intrinsics.width
        metadata["fisheye_crop_radius"] = float(capture.fisheye_crop_radius) * images.sizes[indices[0]][0] / width
    return Cameras(
        camera_to_worlds=poses[indices][:, :3, :4],
        fx=fx.float(),
        fy=fy.float(),
        cx=cx.float(),
        cy=cy.float(),
        width=widths.long(),
        height=heights.long(),
        distortion_params=torch.tensor(distortion, dtype=torch.float32),
        camera_type=types,
        metadata=metadata,
    )


def _oriented(config: CloseupDataParserConfig, capture: Capture) -> tuple[torch.Tensor, torch.Tensor]:
    """The capture's poses [n, 3, 4] float32 in nerfstudio's world before scaling, and what leads there [3, 4] float64.

    nerfstudio does this in float32, of which nothing is left where a capture comes with coordinates of a map
    (millions of metres). Such a capture is centred in float64 first; others keep nerfstudio's very numbers.
    """
    poses = np.stack([frame.c2w for frame in capture.frames])
    center = poses[:, :3, 3].mean(0)
    remote = np.abs(center).max() > REMOTE * np.ptp(poses[:, :3, 3], axis=0).max()
    center *= remote and config.center_method != "none"
    poses[:, :3, 3] -= center
    oriented, transform = camera_utils.auto_orient_and_center_poses(
        torch.from_numpy(poses.astype(np.float32)),
        method=capture.orientation_method or config.orientation_method,  # type: ignore[arg-type]
        center_method=config.center_method,
    )
    transform = transform.double()
    transform[:, 3] -= transform[:, :3] @ torch.from_numpy(center)
    return oriented, transform


def _metadata(capture: Capture, indices: list[int], transform: torch.Tensor, scale: float) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if capture.points is not None:
        cloud = capture.points.transformed(transform.numpy())
        metadata["points3D_xyz"] = torch.from_numpy(cloud.xyz * scale).float()
        metadata["points3D_rgb"] = torch.from_numpy(cloud.rgb.copy())
    bounds = [capture.frames[i].bounds for i in indices]
    if all(pair is not None for pair in bounds):
        metadata["bounds"] = torch.tensor(bounds, dtype=torch.float64).mul(scale).float()
    return metadata


def _mask_files(capture: Capture, images: ImageChoice, indices: list[int]) -> list[Path] | None:
    """The masks of a split, from masks_N where the images are from images_N; None where they have none."""
    masks = [mask for i in indices if (mask := capture.frames[i].mask) is not None]
    return [downscaled_twin(mask, images.factor) for mask in masks] or None


def _check_masks(capture: Capture, images: ImageChoice) -> None:
    """DataError for a mask that is neither the size of its image file nor of the full-resolution photograph."""
    masks = _mask_files(capture, images, list(range(len(capture.frames))))
    for i, mask in enumerate(masks or []):
        image, size, camera = images.paths[i], images.file_sizes[i], capture.frames[i].intrinsics
        if (found := image_size(mask)) not in (size, (camera.width, camera.height), images.sizes[i]):
            raise DataError(
                f"The mask {mask} is {found[0]}x{found[1]}, but its image {image} is {size[0]}x{size[1]}. A mask must "
                "have the size of its image; make it again from that image."
            )


def _report(config: CloseupDataParserConfig, capture: Capture, images: ImageChoice, originals: str) -> None:
    """Say in one line what was found and used; one more line for each thing that the user should know."""
    train, test = (len(split_indices(config, capture, split)) for split in ("train", "test"))
    sizes = sorted(set(images.sizes))
    size = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    points = f"{len(capture.points.xyz)} points from {capture.points.source}" if capture.points else "no sparse points"
    CONSOLE.print(
        escape(
            f"{capture.kind} capture {config.data}: {len(capture.frames)} images ({train} train, {test} test), "
            f"{images.paths[0].parent.name} at {size} ({images.reason}), {originals}, {points}."
        ),
        soft_wrap=True,
    )
    for note in capture.notes:
        CONSOLE.print(escape(f"Note: {note}."), style="yellow", soft_wrap=True)
