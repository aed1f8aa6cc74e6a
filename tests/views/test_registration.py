"""Registration against a scene whose renders from any pose are known in closed form."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.views.registration import compose, displacement, moved, pixel_metric, register
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from tests.scenes import analytic_renderer, facing_views

SIZE = (96, 72)
EXACT = analytic_renderer()


def render(view: View) -> Rendered:
    """In the single precision of a model's renders."""
    exact = EXACT(view)
    return Rendered(exact.color.float(), exact.depth.float(), exact.alpha.float())


def a_view() -> View:
    return facing_views(3, size=SIZE, seed=2)[1]


def pixels_between(view: View, motion: torch.Tensor) -> float:
    return displacement(view, motion, render(view).depth)


def error(view: View, photograph: torch.Tensor) -> float:
    """Mean squared difference to the photograph after the straight line that fits each channel best."""
    total = 0.0
    for ours, theirs in zip(render(view).color.reshape(-1, 3).T.double(), photograph.reshape(-1, 3).T.double()):
        columns = torch.stack([ours, torch.ones_like(ours)], 1)
        fitted = columns @ torch.linalg.lstsq(columns, theirs[:, None]).solution[:, 0]
        total += float((fitted - theirs).square().mean())
    return total / 3


def test_the_metric_is_the_mean_squared_distance_that_pixels_move() -> None:
    view, generator = a_view(), torch.Generator().manual_seed(4)
    exact = EXACT(view)
    motion = torch.randn(6, generator=generator).double() * 1e-5
    rows, columns = torch.meshgrid(*(torch.arange(n).double() + 0.5 for n in SIZE[::-1]), indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1)
    points = torch.cat([(pixels @ view.K.inverse().T) * exact.depth[..., None], torch.ones_like(rows)[..., None]], -1)
    seen = (points @ (moved(view, motion).c2w.inverse() @ view.c2w).T)[..., :3] @ view.K.T
    squared = (seen[..., :2] / seen[..., 2:] - pixels[..., :2]).square().sum(-1)[exact.depth > 0]
    assert float(motion @ pixel_metric(view, exact.depth) @ motion) == pytest.approx(float(squared.mean()), rel=1e-3)


@pytest.mark.parametrize("size", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rotation_is_found_to_a_twentieth_of_a_pixel(size: float, seed: int) -> None:
    view = a_view()
    generator = torch.Generator().manual_seed(seed)
    motion = torch.cat([torch.randn(3, generator=generator).double() * torch.tensor([1, 1, 0.3]), torch.zeros(3)])
    motion = motion * size / pixels_between(view, motion)
    photograph = render(moved(view, motion)).color
    found = register(render, view, photograph)
    rest = compose(-motion, found.motion)
    assert pixels_between(view, rest) < 0.05
    assert found.shift == pytest.approx(size, abs=0.2)
    assert error(found.view, photograph) < 0.05 * error(view, photograph)


def test_a_translation_is_found_where_the_scene_is_deep() -> None:
    view = a_view()
    motion = torch.tensor([0.004, -0.003, 0.002, 0.02, -0.01, 0.01], dtype=torch.float64)
    photograph = render(moved(view, motion)).color
    found = register(render, view, photograph)
    assert pixels_between(view, compose(-motion, found.motion)) < 0.25 * pixels_between(view, motion)
    assert error(found.view, photograph) < 0.2 * error(view, photograph)


def test_an_exposure_of_its_own_is_no_motion() -> None:
    view = a_view()
    photograph = render(view).color * torch.tensor([0.7, 0.8, 0.6]) + 0.05
    found = register(render, view, photograph)
    assert found.shift < 0.05


def test_what_does_not_count_is_not_looked_at() -> None:
    view = a_view()
    motion = torch.tensor([0.01, 0.01, 0, 0, 0, 0], dtype=torch.float64)
    photograph = render(moved(view, motion)).color.clone()
    counted = torch.ones(SIZE[1], SIZE[0], dtype=torch.bool)
    counted[:, :31] = False  # through the coarser levels' pixels
    found = []
    for seed in (0, 1):
        photograph[:, :31] = torch.rand(SIZE[1], 31, 3, generator=torch.Generator().manual_seed(seed))
        found.append(register(render, view, photograph, counted).motion)
    assert torch.equal(*found) and pixels_between(view, compose(-motion, found[0])) < 0.1


def test_a_photograph_of_something_else_moves_nothing_far() -> None:
    view = a_view()
    noise = torch.rand(SIZE[1], SIZE[0], 3, generator=torch.Generator().manual_seed(3))
    found = register(render, view, noise)
    assert error(found.view, noise) <= error(view, noise) + 1e-9 and torch.isfinite(found.motion).all()


def test_nothing_rendered_leaves_the_pose() -> None:
    def empty(view: View) -> Rendered:
        zero = torch.zeros(view.height, view.width)
        return Rendered(zero[..., None].expand(-1, -1, 3), zero, zero)

    view = a_view()
    found = register(empty, view, render(view).color)
    assert torch.equal(found.view.c2w, view.c2w) and not found.motion.any()
