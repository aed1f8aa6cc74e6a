"""Tiny capture folders with known cameras and points, in the three layouts that the dataparser reads.

The world is seen by ``n`` cameras side by side that look at coloured dots; every photograph shows each dot at the
pixel where the camera projects it. So whoever reads the folder back can check poses, intrinsics and points at once.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nerfstudio.data.utils import colmap_parsing_utils as colmap
from PIL import Image

BACKGROUND = 40
DOT_RADIUS = 2
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenCV camera axes to OpenGL camera axes, and back."""


@dataclass(frozen=True)
class Scene:
    """Ground truth: ``xyz`` [P, 3] world, ``rgb`` [P, 3] uint8, ``c2w`` [n, 4, 4] OpenCV axes, ``K`` [3, 3].

    ``photographs``: one [H, W, 3] uint8 for each camera; where there are none, a photograph shows the points as dots.
    """

    xyz: npt.NDArray[np.float64]
    rgb: npt.NDArray[np.uint8]
    c2w: npt.NDArray[np.float64]
    K: npt.NDArray[np.float64]
    size: tuple[int, int]
    photographs: Sequence[npt.NDArray[np.uint8]] = ()

    @property
    def n(self) -> int:
        return len(self.c2w)

    def project(self, index: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(uv [P, 2] in pixels with centres at +0.5, z-depth [P]) of every point in photograph ``index``."""
        local = (np.linalg.inv(self.c2w[index]) @ np.c_[self.xyz, np.ones(len(self.xyz))].T).T[:, :3]
        uvw = local @ self.K.T
        return uvw[:, :2] / uvw[:, 2:], local[:, 2]

    def photograph(self, index: int) -> npt.NDArray[np.uint8]:
        """[H, W, 3]: square dots of the points' colours on grey, centred on the pixel that holds the projection."""
        if self.photographs:
            return self.photographs[index]
        width, height = self.size
        image = np.full((height, width, 3), BACKGROUND, np.uint8)
        for (u, v), colour in zip(self.project(index)[0], self.rgb, strict=True):
            column, row = int(np.floor(u)), int(np.floor(v))
            top, left = max(0, row - DOT_RADIUS), max(0, column - DOT_RADIUS)
            image[top : max(0, row + DOT_RADIUS + 1), left : max(0, column + DOT_RADIUS + 1)] = colour
        return image


def make_scene(n: int = 6, size: tuple[int, int] = (64, 48)) -> Scene:
    """``n`` cameras on an arc, not quite parallel, before 12 well separated dots, in a world turned at random."""
    generator = np.random.default_rng(0)
    width, height = size
    focal = 0.9 * width
    K = np.array([[focal, 0, width / 2 + 0.7], [0, focal * 1.01, height / 2 - 0.4], [0, 0, 1]])
    columns, rows = np.meshgrid(np.linspace(0.15, 0.85, 4) * width, np.linspace(0.2, 0.8, 3) * height)
    depth = generator.uniform(4.0, 4.6, columns.size)
    rays = np.stack([(columns.ravel() - K[0, 2]) / K[0, 0], (rows.ravel() - K[1, 2]) / K[1, 1], np.ones(12)], 1)
    c2w = np.tile(np.eye(4), (n, 1, 1))
    for index, side in enumerate(np.linspace(-0.3, 0.3, n)):
        turn = -0.5 * np.arctan(side / 4.3)
        c2w[index, :3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        c2w[index, :3, 3] = side, 0.05 * (index % 3), 0.1 * side * side
    world = np.eye(4)
    world[:3, :3] = colmap.qvec2rotmat(np.array([0.9, 0.1, -0.3, 0.2]) / np.linalg.norm([0.9, 0.1, -0.3, 0.2]))
    world[:3, 3] = 3.0, -1.0, 2.0
    xyz = (rays * depth[:, None]) @ world[:3, :3].T + world[:3, 3]
    rgb = generator.integers(90, 256, (12, 3)).astype(np.uint8)
    return Scene(xyz, rgb, world @ c2w, K, size)


def save_image(path: Path, pixels: npt.NDArray[np.uint8], factor: int = 1) -> None:
    """Write ``pixels``, area-averaged by ``factor``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    image.reduce(factor).save(path) if factor > 1 else image.save(path)


def turn(path: Path) -> None:
    """Turn an image file by 90 degrees."""
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)


def make_colmap(
    path: Path,
    n: int = 6,
    folder: str = "sparse/0",
    text: bool = False,
    factors: tuple[int, ...] = (),
    llff_names: bool = False,
    images: bool = True,
    k1: float = 0.0,
    scene: Scene | None = None,
) -> Scene:
    """A COLMAP folder; ``llff_names``: the images_N/ are named image000.png, ... instead of like images/."""
    scene = scene or _square_pixels(make_scene(n))
    names = [f"IMG_{index:04d}.png" for index in range(scene.n)]
    for index, name in enumerate(names):
        if images:
            save_image(path / "images" / name, scene.photograph(index))
        for factor in factors:
            small = f"image{index:03d}.png" if llff_names else name
            save_image(path / f"images_{factor}" / small, scene.photograph(index), factor)
    write_model(path / folder, scene, names, k1=k1, text=text)
    return scene


def make_llff(path: Path, n: int = 6, sparse: bool = True, images_bin: bool = False, **options: Any) -> Scene:
    """An LLFF folder: that of `make_colmap` with images_2/ named image000.png and so on, without images.bin unless
    ``images_bin``, or without ``sparse`` altogether; and poses_bounds.npy."""
    scene = make_colmap(path, n, **{"factors": (2,), "llff_names": True, **options})
    width, height = scene.size
    rows = []
    for index in range(scene.n):
        right, down, forward, position = scene.c2w[index, :3].T
        hwf = np.array([height, width, scene.K[0, 0]])
        depth = scene.project(index)[1]
        matrix = np.stack([down, right, -forward, position, hwf], axis=1)
        rows.append(np.r_[matrix.ravel(), depth.min() * 0.9, depth.max() * 1.1])
    np.save(path / "poses_bounds.npy", np.array(rows))
    if not sparse:
        shutil.rmtree(path / "sparse")
    elif not images_bin:
        (path / "sparse/0/images.bin").unlink()
    return scene


def make_transforms(
    path: Path,
    n: int = 6,
    size: tuple[int, int] = (64, 48),
    ply: bool = True,
    factors: tuple[int, ...] = (),
    masks: bool = False,
    per_frame: bool = False,
    scene: Scene | None = None,
) -> Scene:
    """A nerfstudio folder. ``per_frame``: intrinsics in every frame."""
    scene = scene or make_scene(n, size)
    n, (width, height) = scene.n, scene.size
    intrinsics = {
        "w": width, "h": height, "fl_x": scene.K[0, 0], "fl_y": scene.K[1, 1], "cx": scene.K[0, 2], "cy": scene.K[1, 2],
    }  # fmt: skip
    frames = []
    for index in range(n):
        name = f"frame_{index:05d}.png"
        save_image(path / "images" / name, scene.photograph(index))
        for factor in factors:
            save_image(path / f"images_{factor}" / name, scene.photograph(index), factor)
        frame = {"file_path": f"images/{name}", "transform_matrix": (scene.c2w[index] @ FLIP_YZ).tolist()}
        if masks:
            save_image(path / "masks" / name, np.full((height, width), 255, np.uint8))
            frame["mask_path"] = f"masks/{name}"
        frames.append({**frame, **intrinsics} if per_frame else frame)
    meta: dict = {"camera_model": "OPENCV", "frames": frames[::-1]}
    if not per_frame:
        meta |= {**intrinsics, "k1": 0.0}
    if ply:
        write_ply(path / "sparse_pc.ply", scene.xyz, scene.rgb)
        meta["ply_file_path"] = "sparse_pc.ply"
    (path / "transforms.json").write_text(json.dumps(meta))
    return scene


def edit_json(path: Path, **changes: object) -> None:
    """Change entries at the top of a JSON file; None removes one."""
    meta = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


def write_ply(path: Path, xyz: npt.NDArray[np.float64], rgb: npt.NDArray[np.uint8]) -> None:
    """A binary little-endian PLY with double positions and uchar colours, as ns-process-data writes it."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property double {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    body = b"".join(struct.pack("<3d3B", *point, *colour) for point, colour in zip(xyz, rgb.tolist(), strict=True))
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + body)


def write_model(folder: Path, scene: Scene, names: list[str], k1: float = 0.0, text: bool = False) -> None:
    """A COLMAP model with one SIMPLE_RADIAL camera, written by nerfstudio's own writers. The image ids run against
    the order of the names, so that nobody can mistake the one for the other."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = scene.size
    params = np.array([scene.K[0, 0], scene.K[0, 2], scene.K[1, 2], k1])
    cameras = {1: colmap.Camera(1, "SIMPLE_RADIAL", width, height, params)}
    images, points = {}, {}
    for index, name in enumerate(names):
        w2c = np.linalg.inv(scene.c2w[index])
        image_id = len(names) - index
        uv = scene.project(index)[0]
        qvec = colmap.rotmat2qvec(w2c[:3, :3])
        images[image_id] = colmap.Image(image_id, qvec, w2c[:3, 3], 1, name, uv, np.arange(1, len(uv) + 1))
    for index, (xyz, rgb) in enumerate(zip(scene.xyz, scene.rgb, strict=True)):
        ids = np.arange(1, len(names) + 1)
        points[index + 1] = colmap.Point3D(index + 1, xyz, rgb, 0.5, ids, np.full(len(ids), index))
    if text:
        colmap.write_cameras_text(cameras, folder / "cameras.txt")
        colmap.write_images_text(images, folder / "images.txt")
        colmap.write_points3D_text(points, folder / "points3D.txt")
        return
    colmap.write_cameras_binary(cameras, folder / "cameras.bin")
    colmap.write_points3D_binary(points, folder / "points3D.bin")
    colmap.write_images_binary(images, folder / "images.bin")


def _square_pixels(scene: Scene) -> Scene:
    """The same scene as LLFF and SIMPLE_RADIAL know cameras: one focal length, centre in the middle."""
    width, height = scene.size
    K = np.array([[scene.K[0, 0], 0, width / 2], [0, scene.K[0, 0], height / 2], [0, 0, 1.0]])
    return Scene(scene.xyz, scene.rgb, scene.c2w, K, scene.size)
