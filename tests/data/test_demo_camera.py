"""The demo's close-ups keep their promises: distances, cone, aim, and a clear ray of the target."""

from __future__ import annotations

import numpy as np
import pytest

from closeup_ns.data.demo.camera import (
    CLOSEUP_JITTER,
    CONE_DEGREES,
    Caster,
    closeup_views,
    far_views,
    target_is_visible,
)  # fmt: skip
from closeup_ns.errors import PlanningError
from closeup_ns.views.view import View

TARGET = np.array([0.1, 0.2, 0.3])


def open_space(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distances to a wall y = 0.2 that the target lies on, with nothing before it."""
    with np.errstate(divide="ignore"):
        reach = (TARGET[1] - origins[:, 1]) / directions[:, 1]
    return np.where(reach > 0, reach, np.inf)


def walked() -> list[View]:
    return far_views(TARGET, 30, (64, 48), np.random.default_rng(0))


@pytest.mark.parametrize("scale", [3, 9, 27])
def test_closeups_lie_in_the_promised_shell_and_cone(scale: int) -> None:
    far = walked()
    offsets = np.stack([view.position.numpy() for view in far]) - TARGET
    d0 = np.median(np.linalg.norm(offsets, axis=1))
    mean = (offsets / np.linalg.norm(offsets, axis=1, keepdims=True)).mean(0)
    views = closeup_views(TARGET, far, scale, 8, (64, 48), np.random.default_rng(1), open_space)
    assert len(views) == 8
    distances = [float(np.linalg.norm(view.position.numpy() - TARGET)) for view in views]
    assert np.ptp(distances) > 0.02 * d0 / scale  # jittered, not the frontier radius itself
    for view, distance in zip(views, distances, strict=True):
        assert abs(distance / (d0 / scale) - 1) <= CLOSEUP_JITTER + 1e-12
        direction = (view.position.numpy() - TARGET) / distance
        cosine = direction @ mean / np.linalg.norm(mean)
        assert np.degrees(np.arccos(min(cosine, 1.0))) <= CONE_DEGREES + 1e-6
        on_lines = [np.degrees(np.arccos(direction @ o / np.linalg.norm(o))) for o in offsets]
        assert min(on_lines) > 1e-3  # never on the line from a known camera to the target: not a frontier camera
        local = view.c2w[:3, :3].T.numpy() @ (TARGET - view.position.numpy())
        assert np.abs(local[:2] / local[2]).max() < 0.2  # the target is in the inner half of the image


def test_a_rod_in_front_of_the_target_is_not_a_clear_view() -> None:
    view = closeup_views(TARGET, walked(), 3, 1, (64, 48), np.random.default_rng(2), open_space)[0]
    distance = float(np.linalg.norm(view.position.numpy() - TARGET))
    ray = (TARGET - view.position.numpy()) / distance

    def with_ball(where: float, radius: float, beside: float = 0.0) -> Caster:
        centre = view.position.numpy() + where * distance * (ray + beside * view.c2w[:3, 0].numpy())

        def cast(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
            along = ((centre - origins) * directions).sum(1)
            missed_by = np.linalg.norm(centre - origins - along[:, None] * directions, axis=1)
            hit = (missed_by < radius) & (along > 0)
            return np.minimum(open_space(origins, directions), np.where(hit, along, np.inf))

        return cast

    assert target_is_visible(view, TARGET, open_space)
    assert not target_is_visible(view, TARGET, with_ball(0.8, 0.01 * distance))  # hides the target itself
    assert not target_is_visible(view, TARGET, with_ball(0.3, 0.03 * distance, 0.2))  # too near the lens
    assert target_is_visible(view, TARGET, with_ball(0.8, 0.03 * distance, 0.2))  # beside the target, far enough


def test_a_target_behind_a_wall_is_an_error_with_words() -> None:
    def wall(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        return np.full(len(origins), 1e-3)

    with pytest.raises(PlanningError, match="hide the target from 9x"):
        closeup_views(TARGET, walked(), 9, 1, (64, 48), np.random.default_rng(3), wall)
