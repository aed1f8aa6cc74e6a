"""What backs a pixel, against a ray-traced scene in which one knows; and how it is drawn."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.viewer.picture.overlays import (
    GENERATED,
    NOTHING,
    REAL,
    TARGET_TINT,
    Backing,
    GeneratedView,
    backing,
    draw,
    draw_target,
    side_by_side,
)
from closeup_ns.views.reliability import Observation
from closeup_ns.views.view import View, look_at
from closeup_ns.views.warp import project
from tests.scenes import analytic_renderer, intrinsics

RENDER = analytic_renderer(boxes=())


def looking(x: float, z: float = 0.0, at: float | None = None, size: tuple[int, int] = (64, 48)) -> View:
    position, target = torch.tensor([x, 0.0, z]), torch.tensor([x if at is None else at, 0.0, 4.0])
    return look_at(position, target, torch.tensor([0.0, -1.0, 0.0]), intrinsics(*size, dtype=torch.float32), *size)


def photograph(view: View) -> Observation:
    rendered = RENDER(view)
    return Observation(view, rendered.color.permute(2, 0, 1), rendered.depth)


def generated(view: View, real: bool) -> GeneratedView:
    return GeneratedView(view, RENDER(view).depth, torch.full((view.height, view.width), real))


def test_what_photographs_see_is_real_and_the_rest_is_nothing() -> None:
    wide = looking(0.0, z=-3.0)
    found = backing(wide, RENDER(wide), [photograph(looking(0.0)), photograph(looking(0.1))], [])
    inside = found.reliable[20:28, 27:37]
    assert bool(inside.all()) and not bool(found.reliable[:4].any())
    assert bool((found.provenance == torch.where(found.reliable, REAL, NOTHING)).all())


def test_a_generated_view_takes_over_where_it_shows_the_surface() -> None:
    view, photographs = looking(0.0), [photograph(looking(0.0)), photograph(looking(0.1))]
    close = looking(0.0, z=3.0)
    found = backing(view, RENDER(view), photographs, [generated(close, real=False)])
    assert int(found.provenance[24, 32]) == GENERATED and int(found.provenance[24, 4]) == REAL
    real = backing(view, RENDER(view), photographs, [generated(close, real=False), generated(close, real=True)])
    assert int(real.provenance[24, 32]) == REAL


def test_a_generated_view_that_sees_another_surface_says_nothing() -> None:
    view = looking(0.0)
    other = generated(looking(0.0, z=3.0), real=False)
    wrong = GeneratedView(other.view, other.depth * 0.5, other.real)
    assert not bool((backing(view, RENDER(view), [], [wrong]).provenance == GENERATED).any())


def test_overlays_are_drawn_at_the_frames_own_size() -> None:
    reliable = torch.tensor([[True, False]])
    found = Backing(reliable, torch.tensor([[REAL, GENERATED]]))
    rgb = torch.full((6, 8, 3), 0.5)
    green, colours = draw(rgb, found, True, False), draw(rgb, found, False, True)
    assert green.shape == rgb.shape
    assert green[3, 1].argmax() == 1 and bool((green[3, 6] < 0.5).all())
    assert colours[3, 1].argmax() == 2 and colours[3, 6].argmax() == 0
    both = draw(rgb, found, True, True)
    assert float(both[3, 6].sum()) < float(colours[3, 6].sum())


def test_nothing_is_drawn_where_nothing_is_known_but_darkness() -> None:
    found = Backing(torch.zeros(1, 1, dtype=torch.bool), torch.full((1, 1), NOTHING))
    rgb = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    for reliable, provenance in ((True, False), (False, True), (True, True)):
        drawn = draw(rgb, found, reliable, provenance)
        assert bool((drawn < rgb).all())


def test_halves() -> None:
    joined = side_by_side(torch.zeros(3, 8, 3), torch.full((3, 8, 3), 0.5))
    assert bool((joined[:, :4] == 0).all()) and bool((joined[:, 4] == 1).all()) and bool((joined[:, 5:] == 0.5).all())


def test_the_ring_is_about_the_target_at_every_size_of_the_frame() -> None:
    view, point = looking(0.5), torch.tensor([1.0, 0.25, 4.0])
    (column, row), _ = (value[0] for value in project(view, point[None]))
    for factor in (1, 5):
        height, width = view.height * factor, view.width * factor
        ring = draw_target(torch.zeros(height, width, 3), view, point)
        red = (ring - torch.tensor(TARGET_TINT)).abs().sum(-1) < 1e-6
        rows, columns = (where.float().mean() + 0.5 for where in red.nonzero(as_tuple=True))
        assert float(rows) == pytest.approx(float(row) * factor, abs=0.6)
        assert float(columns) == pytest.approx(float(column) * factor, abs=0.6)
        assert 0 < int(red.sum()) < 0.03 * height * width
        assert not bool(ring[int(row * factor), int(column * factor)].any()), "what is marked stays visible"


def test_a_target_behind_the_camera_has_no_ring() -> None:
    rgb = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(0))
    assert draw_target(rgb, looking(0.0), torch.tensor([0.0, 0.0, -4.0])) is rgb
