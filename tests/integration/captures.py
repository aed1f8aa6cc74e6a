"""Tiny captures that can really be trained on: photographs of the analytic scene, in every layout that is read."""

from __future__ import annotations

from pathlib import Path

import torch

from closeup_ns.views.warp import backproject
from tests.data import folders
from tests.data.folders import Scene
from tests.scenes import analytic_renderer, facing_views

SIZE = (64, 48)


def photographed_scene(count: int, seed: int, size: tuple[int, int] = SIZE) -> Scene:
    """``count`` photographs of the textured wall and box.

    The scene's points are every 8th pixel of every photograph along each axis, lifted by its exact depth.
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
    return Scene(torch.cat(xyz).numpy(), torch.cat(rgb).numpy(), c2w, views[0].K.numpy(), size, images)


def write_transforms(folder: Path, count: int = 12, seed: int = 0, points: bool = True, finer: int = 1) -> Scene:
    """A transforms.json folder; every 6th photograph is for evaluation.

    ``finer``: photographs so many times finer; beside them images_N at the usual size.
    """
    scene = photographed_scene(count, seed, (SIZE[0] * finer, SIZE[1] * finer))
    folders.make_transforms(folder, scene=scene, ply=points, factors=(finer,) if finer > 1 else ())
    names = [f"images/frame_{index:05d}.png" for index in range(count)]
    held_out = names[3::6]
    lists = {"val_filenames": held_out, "test_filenames": held_out}
    train = [name for name in names if name not in held_out]
    folders.edit_json(folder / "transforms.json", train_filenames=train, **lists)
    return scene


def write_llff(folder: Path) -> Scene:
    """An LLFF folder: images/ and poses_bounds.npy alone."""
    return folders.make_llff(folder, scene=photographed_scene(12, 0), factors=(), sparse=False)


def write_colmap(folder: Path) -> Scene:
    """A COLMAP folder: images/ and sparse/0."""
    return folders.make_colmap(folder, scene=photographed_scene(12, 0))
