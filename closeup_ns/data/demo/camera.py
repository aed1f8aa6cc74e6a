"""Where the demo's cameras stand: far ones as a person walks past the table, close-ups at exact fractions of d0.

Views are float64, world frame of `demo_layout` (metres, z up).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from closeup_ns.data.demo.layout import Points
from closeup_ns.errors import PlanningError
from closeup_ns.views.view import View, look_at
from closeup_ns.views.warp import camera_rays

SCALES = (3, 9, 27)
"""How many times nearer than the far photographs the true close-ups are."""
FIELD_OF_VIEW_DEGREES = 50.0
"""Horizontal field of view of every camera: a phone's main lens, cropped to 4:3."""

Caster = Callable[[Points, Points], np.ndarray]
"""Distances [N] along unit rays, from origins [N, 3] and directions [N, 3]."""


DISTANCE = 1.0
"""Metres from the target to a far camera."""
DISTANCE_JITTER = 0.15
"""Largest relative deviation of a far camera's distance: no far photograph is nearer than 0.85 of it."""
AZIMUTH_DEGREES = 32.0
"""The walk spans from minus to plus this angle around the target."""
ELEVATIONS_DEGREES = (9.0, 22.0, 36.0)
"""Height of the camera on each pass, as the angle above the target."""
HAND_DEGREES = 2.5
"""Standard deviation of azimuth, elevation and roll from a steady walk."""
AIM_METRES = 0.05
"""Standard deviation of the point that a far camera is aimed at."""
CONE_DEGREES = 12.0
"""Largest angle between a close-up's direction and the mean direction of the far cameras."""
CLOSEUP_JITTER = 0.08
"""Largest relative deviation of a close-up's distance from d0 / scale."""
CLOSEUP_AIM = 0.06
"""Largest offset of a close-up's aim from the target, as a fraction of its distance, along each axis."""
CLEARANCE = 0.5
"""A close-up sees nothing nearer than this fraction of its distance to the target."""


def intrinsics(width: int, height: int) -> torch.Tensor:
    """K [3, 3], float64: principal point in the middle, square pixels."""
    focal = width / (2 * np.tan(np.deg2rad(FIELD_OF_VIEW_DEGREES) / 2))
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def far_views(target: Points, count: int, size: tuple[int, int], rng: np.random.Generator) -> list[View]:
    """``count`` views in the order of the walk: one pass per elevation, there and back again."""
    passes = np.array_split(np.arange(count), len(ELEVATIONS_DEGREES))
    views = []
    for k, (members, elevation) in enumerate(zip(passes, ELEVATIONS_DEGREES, strict=True)):
        sweep = np.linspace(-1, 1, len(members)) * AZIMUTH_DEGREES * (1 if k % 2 == 0 else -1)
        for azimuth in sweep:
            hand = HAND_DEGREES * rng.standard_normal(3)
            direction = _direction(azimuth + hand[0], max(elevation + hand[1], 4.0))
            distance = DISTANCE * (1 + DISTANCE_JITTER * rng.uniform(-1, 1))
            aim = target + AIM_METRES * rng.standard_normal(3)
            views.append(_view(target + distance * direction, aim, np.deg2rad(hand[2]), size))
    return views


def closeup_views(
    target: Points,
    far: Sequence[View],
    scale: int,
    count: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    cast: Caster,
) -> list[View]:
    """``count`` views at d0 / ``scale`` around the mean direction of the ``far`` views, with nothing before the target.

    d0 is the median distance of the far views. Every view is jittered in direction, distance, aim and roll, so none is
    a frontier camera of the method (those lie on the lines from the known cameras to the target, App. B).

    Raises:
        PlanningError: occluders hide the target from nearly everywhere in the cone.
    """
    offsets = np.stack([view.position.numpy() for view in far]) - target
    mean = (offsets / np.linalg.norm(offsets, axis=1, keepdims=True)).mean(0)
    d0 = float(np.median(np.linalg.norm(offsets, axis=1)))
    views: list[View] = []
    for _ in range(200 * count):
        direction = _in_cone(mean / np.linalg.norm(mean), np.deg2rad(CONE_DEGREES), rng)
        distance = d0 / scale * (1 + CLOSEUP_JITTER * rng.uniform(-1, 1))
        aim = target + CLOSEUP_AIM * distance * rng.uniform(-1, 1, 3)
        view = _view(target + distance * direction, aim, np.deg2rad(3 * rng.standard_normal()), size)
        if target_is_visible(view, target, cast):
            views.append(view)
            if len(views) == count:
                return views
    raise PlanningError(f"the demo's occluders hide the target from {scale}x; {len(views)} of {count} views were found")


def target_is_visible(view: View, target: Points, cast: Caster) -> bool:
    """Whether nothing is within `CLEARANCE` of the distance to the target, and nothing hides the target itself."""
    distance = float(np.linalg.norm(view.position.numpy() - target))
    if not CLEARANCE * distance < cast(*pixel_rays(view, 32, 24)).min():
        return False
    ray = (target - view.position.numpy())[None] / distance
    return abs(float(cast(view.position.numpy()[None], ray)[0]) - distance) < 1e-3 * distance


def pixel_rays(view: View, columns: int, rows: int) -> tuple[Points, Points]:
    """Origins and unit directions [columns * rows, 3] through an even grid over the image, borders included."""
    u, v = np.meshgrid(np.linspace(0, view.width, columns), np.linspace(0, view.height, rows))
    return rays_through(view, np.stack([u.ravel(), v.ravel()], 1))


def rays_through(view: View, pixels: Points) -> tuple[Points, Points]:
    """Origins and unit directions [N, 3], world, of the rays through image positions [N, 2] (centres at +0.5)."""
    directions = camera_rays(view, torch.from_numpy(pixels)) @ view.c2w[:3, :3].T
    origins = view.position.expand_as(directions)
    return origins.numpy(), torch.nn.functional.normalize(directions, dim=1).numpy()


def _direction(azimuth_degrees: float, elevation_degrees: float) -> Points:
    a, e = np.deg2rad(azimuth_degrees), np.deg2rad(elevation_degrees)
    return np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])


def _in_cone(axis: Points, half_angle: float, rng: np.random.Generator) -> Points:
    """A unit vector uniform over the solid angle of the cone."""
    cosine, turn = rng.uniform(np.cos(half_angle), 1), rng.uniform(0, 2 * np.pi)
    one = np.cross(axis, [0.0, 0.0, 1.0])
    one /= np.linalg.norm(one)
    ring = np.cos(turn) * one + np.sin(turn) * np.cross(axis, one)
    return cosine * axis + np.sqrt(1 - cosine**2) * ring


def _view(position: Points, aim: Points, roll: float, size: tuple[int, int]) -> View:
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    level = look_at(torch.from_numpy(position), torch.from_numpy(aim), up, intrinsics(*size), *size)
    c, s = float(np.cos(roll)), float(np.sin(roll))
    turn = torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    return View(level.K, level.c2w @ turn, *size)
