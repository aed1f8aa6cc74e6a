"""Tiny captures that can really be trained on: photographs of the analytic scene, in every layout that is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from closeup_ns.views.warp import backproject
from tests.data.folders import FLIP_YZ, Scene, save_image, write_model, write_ply
from tests.scenes import analytic_renderer, facing_views

SIZE = (64, 48)


def photographed_scene(count: int = 12, seed: int = 0, size: tuple[int, int] = SIZE) -> tuple[Scene, list[np.ndarray]]:
    """``count`` photographs [48, 64, 3] uint8 of the textured wall and box, and the scene that took them.

    The scene's points are every 4th pixel of every photograph, lifted by its exact depth.
    """
    render = analytic_renderer()
    views = facing_views(count, size=size, seed=seed)
    images, xyz, rgb = [], [], []
    for view in views:
        rendered = render(view)
        image = (rendered.color * 255).round().to(torch.uint8)
        images.append(image.numpy())
        xyz.append(backproject(view, rendered.depth)[2::8, 2::8].reshape(-1, 3))
        rgb.append(image[2::8, 2::8].reshape(-1, 3))
    c2w = torch.stack([view.c2w for view in views]).numpy()
    return Scene(torch.cat(xyz).numpy(), torch.cat(rgb).numpy(), c2w, views[0].K.numpy(), size), images


def write_transforms(folder: Path, count: int = 12, seed: int = 0, points: bool = True, finer: int = 1) -> Scene:
    """A transforms.json folder; every 6th photograph is for evaluation.

    ``finer``: photographs so many times finer; beside them images_N at the usual size.
    """
    scene, images = photographed_scene(count, seed, (SIZE[0] * finer, SIZE[1] * finer))
    if finer > 1:
        for index, image in enumerate(images):
            small = image.reshape(SIZE[1], finer, SIZE[0], finer, 3).mean((1, 3)).round().astype(np.uint8)
            save_image(folder / f"images_{finer}/frame_{index:05d}.png", small)
    names = [f"images/frame_{index:05d}.png" for index in range(count)]
    for name, image in zip(names, images, strict=True):
        save_image(folder / name, image)
    K, (width, height) = scene.K, scene.size
    held_out = names[3::6]
    meta: dict = {
        "camera_model": "OPENCV",
        "w": width, "h": height, "fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2],
        "frames": [
            {"file_path": name, "transform_matrix": (pose @ FLIP_YZ).tolist()}
            for name, pose in zip(names, scene.c2w, strict=True)
        ],
        "train_filenames": [name for name in names if name not in held_out],
        "val_filenames": held_out,
        "test_filenames": held_out,
    }  # fmt: skip
    if points:
        write_ply(folder / "sparse_pc.ply", scene.xyz, scene.rgb)
        meta["ply_file_path"] = "sparse_pc.ply"
    (folder / "transforms.json").write_text(json.dumps(meta))
    return scene


def write_llff(folder: Path, count: int = 12, seed: int = 0, points: bool = False) -> Scene:
    """An LLFF folder: images/ and poses_bounds.npy and, with ``points``, sparse/0."""
    scene, images = photographed_scene(count, seed)
    width, height = scene.size
    rows, names = [], [f"IMG_{index:04d}.png" for index in range(count)]
    for name, image, pose in zip(names, images, scene.c2w, strict=True):
        right, down, forward, position = pose[:3].T
        matrix = np.stack([down, right, -forward, position, np.array([height, width, scene.K[0, 0]])], axis=1)
        rows.append(np.r_[matrix.ravel(), 3.0, 4.6])
        save_image(folder / "images" / name, image)
    np.save(folder / "poses_bounds.npy", np.array(rows))
    if points:
        write_model(folder / "sparse/0", scene, names, with_images=False)
    return scene


def write_colmap(folder: Path, count: int = 12, seed: int = 0) -> Scene:
    """A COLMAP folder: images/ and sparse/0."""
    scene, images = photographed_scene(count, seed)
    names = [f"IMG_{index:04d}.png" for index in range(count)]
    for name, image in zip(names, images, strict=True):
        save_image(folder / "images" / name, image)
    write_model(folder / "sparse/0", scene, names)
    return scene
