"""The demo scene as data on disk: far photographs with sparse points to train on, and true close-ups to judge by.

folder/capture/   transforms.json, images/*.jpg as taken, images_4/*.jpg reduced to what is trained on, sparse_pc.ply:
                      all that training sees
folder/truth/     cameras.json, images/*.png: the close-ups, in the same world frame; capture/ never refers to it
folder/demo.json  `DemoNote`: the target point and where a user would click on it;
                      written last, so its presence says that all is there
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from closeup_ns.atomic import write_json
from closeup_ns.data.demo.camera import SCALES, closeup_views, far_views, rays_through
from closeup_ns.data.demo.layout import Points, still_life, target_point
from closeup_ns.data.demo.photo import PhotoModel, reduced
from closeup_ns.data.demo.render import World
from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.data.frames import write_transforms
from closeup_ns.data.pictures import write_picture
from closeup_ns.data.ply import write_points
from closeup_ns.errors import PlanningError
from closeup_ns.views.view import View
from closeup_ns.views.warp import inside, project

HOLD_OUT_EVERY = 8
"""Every n-th far photograph is held out of training."""
_FAR_SAMPLES, _TRUTH_SAMPLES = 4, 9
_CORNERS = 160
"""Of a photograph, for sparse points."""
_POINT_NOISE_METRES = 0.0008
"""Standard deviation of a sparse point: about half a pixel of a far photograph, as structure from motion has it."""


@dataclass(frozen=True)
class Click:
    """A pixel of a photograph of the size that is trained on, counted from its upper left corner."""

    photo: str
    column: float
    row: float


@dataclass(frozen=True)
class DemoNote:
    """What demo.json says."""

    target: tuple[float, float, float]
    """World position in the frame of transforms.json."""
    d0: float
    """Median distance of the training photographs from the target."""
    click: Click
    """Where a user would click on the target."""
    held_out: tuple[str, ...]
    """File names of the far photographs that are not trained on."""
    seed: int
    """Of the scene."""


def write_demo_scene(
    folder: Path,
    seed: int = 0,
    far_count: int = 34,
    size: tuple[int, int] = (512, 384),
    closeups_per_scale: int = 4,
    finer: int = 4,
    light_samples: int = 144,
    exposure_drift: float = 0.0,
    advance: Callable[[], None] = lambda: None,
) -> DemoNote:
    """Render the still life and write it below ``folder``. The same arguments give the same files.

    Args:
        folder: receives capture/, truth/ and demo.json.
        seed: of the plant, the cameras and the noise.
        far_count: far photographs; every `HOLD_OUT_EVERY`-th is listed for testing and the others for training.
        size: width and height in pixels of what is trained on (capture/images_N) and of the true close-ups.
        closeups_per_scale: true close-ups at each of `SCALES`.
        finer: N: how many times more pixels along each axis the photographs as taken (capture/images) have.
        light_samples: per place on a surface when the scene is lit; a square number.
        exposure_drift: standard deviation, in stops, of the training photographs' exposures around their mean, at which
            the held-out photographs and the close-ups are taken.
        advance: called after each picture.
    """
    world, target = World(still_life(seed), light_samples), target_point()
    rng = np.random.default_rng([seed, 2])
    views, names = far_views(target, far_count, size, rng), [f"far_{i:03d}.jpg" for i in range(far_count)]
    held_out = [i % HOLD_OUT_EVERY == HOLD_OUT_EVERY // 2 for i in range(far_count)]
    train = [view for view, test in zip(views, held_out, strict=True) if not test]
    d0 = float(np.median([np.linalg.norm(view.position.numpy() - target) for view in train]))
    capture, pictures = folder / "capture", folder / "truth" / "images"
    larger, small = [view.scaled_to(size[0] * finer, size[1] * finer) for view in views], []
    stops = exposure_drift * _unit_drift(held_out, seed)
    for i, (name, view) in enumerate(zip(names, larger, strict=True)):
        small.append(_take(world, view, d0, capture / "images" / name, finer, (seed, i), stops[i]))
        advance()
    write_points(capture / "sparse_pc.ply", *_sparse_points(world, train, small, held_out, rng))
    _write_cameras(capture, names, larger, held_out)
    truth: list[EvalCamera] = []
    for i, (scale, view) in enumerate(_closeups(world, train, closeups_per_scale, rng)):
        path = pictures / f"closeup_{scale:02d}x_{i:02d}.png"
        write_picture(path, photographed(world, view, d0 / scale, 1000 * seed + 500 + i))
        truth.append(EvalCamera(path.stem, scale, view, path))
        advance()
    write_cameras(pictures.parent / "cameras.json", truth)
    kept = [name for name, out in zip(names, held_out, strict=True) if not out]
    rest = tuple(name for name in names if name not in kept)
    x, y, z = target.tolist()
    note = DemoNote((x, y, z), d0, _click(world, train, kept, target), rest, seed)
    write_json(folder / "demo.json", asdict(note))
    return note


def _closeups(world: World, train: list[View], count: int, rng: np.random.Generator) -> list[tuple[int, View]]:
    """(scale, view) of ``count`` true close-ups per scale, as large as the views that are trained on."""
    size, target = (train[0].width, train[0].height), target_point()
    return [
        (scale, view)
        for scale in SCALES
        for view in closeup_views(target, train, scale, count, size, rng, world.distance)
    ]


def _unit_drift(held_out: list[bool], seed: int) -> NDArray[np.float64]:
    """Of each photograph: draws of deviation 1 whose mean is 0 for those to train on, 0 for those held out."""
    train = ~np.array(held_out)
    drawn = np.random.default_rng([seed, 4]).standard_normal(len(train))
    return np.where(train, drawn - drawn[train].mean(), 0.0)


def _take(
    world: World, view: View, d0: float, path: Path, finer: int, seeds: tuple[int, int], stops: float
) -> NDArray[np.uint8]:
    """Take one far photograph, ``stops`` above the usual exposure; write it as taken and ``finer`` times smaller.

    Returns the smaller one at the usual exposure, so that nothing else of the scene depends on ``stops``.
    """
    usual = PhotoModel(reduction=1)
    radiance = _expose(world, view, d0, usual, _FAR_SAMPLES, seed=1000 * seeds[0] + seeds[1])

    def developed(camera: PhotoModel) -> NDArray[np.uint8]:
        return camera.develop(radiance, np.random.default_rng([seeds[0], 3, seeds[1]]))

    original = developed(replace(usual, exposure=usual.exposure * 2**stops))
    write_picture(path, original, quality=usual.jpeg_quality)
    write_picture(
        path.parent.with_name(f"images_{finer}") / path.name, reduced(original, finer), quality=usual.jpeg_quality
    )
    return reduced(developed(usual) if stops else original, finer)


def photographed(world: World, view: View, distance: float, seed: int = 0) -> NDArray[np.uint8]:
    """What a noiseless camera at ``view`` shows [H, W, 3], as in truth/; ``distance`` is its scale's."""
    return PhotoModel().develop(_expose(world, view, distance, PhotoModel(), _TRUTH_SAMPLES, seed))


def _expose(
    world: World, view: View, distance: float, photo: PhotoModel, samples: int, seed: int
) -> NDArray[np.float32]:
    """Radiance on the sensor. Textures are averaged beforehand below a sixth of what a sensor pixel covers.

    ``distance`` is the nominal one of all views of a scale, so that they share the averaged textures.
    """
    sensor = view.scaled_to(view.width * photo.reduction, view.height * photo.reduction)
    return world.radiance(sensor, distance / float(sensor.K[0, 0]) / 6, samples, seed)


def _write_cameras(folder: Path, names: list[str], views: list[View], held_out: list[bool]) -> None:
    """transforms.json for the photographs as taken; nerfstudio and our parser find images_N beside images by name."""
    paths = [f"images/{name}" for name in names]
    test = [path for path, out in zip(paths, held_out, strict=True) if out]
    train = [path for path in paths if path not in test]
    lists = {"train_filenames": train, "val_filenames": test, "test_filenames": test}
    frames = [({"file_path": path}, view) for path, view in zip(paths, views, strict=True)]
    write_transforms(folder / "transforms.json", frames, ply_file_path="sparse_pc.ply", **lists)


def _sparse_points(
    world: World,
    train: list[View],
    photos: list[NDArray[np.uint8]],
    held_out: list[bool],
    rng: np.random.Generator,
) -> tuple[Points, NDArray[np.uint8]]:
    """What structure from motion would find: corners of the training photographs, seen again by two other photographs.

    Points [N, 3] carry noise of half a far pixel; colours [N, 3] are those of the photograph they were found in.
    """
    kept = [image for image, test in zip(photos, held_out, strict=True) if not test]
    points, colours = [], []
    for view, image in zip(train, kept, strict=True):
        rows, columns = _corners(image, rng)
        origins, directions = rays_through(view, np.stack([columns + 0.5, rows + 0.5], 1))
        reach = world.distance(origins, directions)
        hit = np.isfinite(reach)
        found = origins[hit] + reach[hit, None] * directions[hit]
        seen = sum(_sees(world, train[k], found).astype(int) for k in rng.choice(len(train), 3, replace=False))
        points.append(found[seen >= 2])
        colours.append(image[rows, columns][hit][seen >= 2])
    clean = np.concatenate(points)
    return clean + _POINT_NOISE_METRES * rng.standard_normal(clean.shape), np.concatenate(colours)


def _click(world: World, train: list[View], names: list[str], target: Points) -> Click:
    """The target in the training photograph that shows it, unhidden, nearest to its middle."""
    spots: list[tuple[float, str, Points]] = []
    for view, name in zip(train, names, strict=True):
        if _sees(world, view, target[None])[0]:
            uv = project(view, torch.from_numpy(target))[0].numpy()
            spots.append((float(np.linalg.norm(uv - view.K[:2, 2].numpy())), name, uv))
    if not spots:
        raise PlanningError("the demo's occluders hide the target in every training photograph; choose another seed")
    _, name, uv = min(spots, key=lambda spot: spot[0])
    return Click(name, float(uv[0]), float(uv[1]))


def _corners(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of up to `_CORNERS` local maxima of the gradient, the stronger the likelier."""
    down, right = np.gradient(image.astype(np.float32).mean(2))
    strength = np.hypot(down, right)
    rows, columns = np.nonzero((strength == maximum_filter(strength, 5)) & (strength > 6))
    chance = strength[rows, columns] / strength[rows, columns].sum()
    chosen = rng.choice(len(rows), min(_CORNERS, len(rows)), replace=False, p=chance)
    return rows[chosen], columns[chosen]


def _sees(world: World, view: View, points: Points) -> NDArray[np.bool_]:
    """Whether each point [N, 3] is inside the image of ``view`` and not hidden from it."""
    position = view.position.numpy()
    offset = points - position
    distance = np.linalg.norm(offset, axis=1)
    shown = inside(view, *project(view, torch.from_numpy(points))).numpy()
    reach = world.distance(np.repeat(position[None], len(points), 0), offset / distance[:, None])
    return shown & (reach > distance - 2e-3)
