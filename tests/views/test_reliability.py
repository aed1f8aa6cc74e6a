"""Reliable pixels on scenes with exact depth (section 4.2)."""

from __future__ import annotations

import pytest
import torch

from closeup_ns.views import reliability
from closeup_ns.views.reliability import Observation, ReliablePixels, reliable_pixels
from closeup_ns.views.view import View
from closeup_ns.views.warp import backproject, project
from tests.scenes import BOX, analytic_renderer, facing_views, intrinsics

RENDER = analytic_renderer()


def camera(x: float, y: float, z: float, size: tuple[int, int] = (160, 120)) -> View:
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, 3] = torch.tensor([x, y, z], dtype=torch.float64)
    return View(intrinsics(*size), c2w, *size)


def observe(view: View, render=RENDER) -> Observation:
    rendered = render(view)
    return Observation(view, rendered.color.permute(2, 0, 1), rendered.depth)


OBSERVATIONS = [observe(camera(x, y, 0.0)) for x in (-0.6, 0.0, 0.6) for y in (-0.4, 0.4)]


def close_up(zoom: float) -> View:
    return camera(0.0 if zoom < 4 else -0.1, 0.0, 4.0 - 4.0 / zoom)


def run(view: View, factor: float = 1.0, observations=None) -> ReliablePixels:
    rendered = RENDER(view)
    observations = OBSERVATIONS if observations is None else observations
    return reliable_pixels(view, rendered.depth * factor, rendered.alpha, observations)


@pytest.mark.parametrize(("zoom", "least"), [(3, 0.2), (9, 0.02), (27, 0.002)])
def test_exact_depth_gives_real_colours_where_pixels_land(zoom: float, least: float) -> None:
    view = close_up(zoom)
    truth = RENDER(view).color.permute(2, 0, 1)
    found = run(view)
    assert float(found.dense.double().mean()) > 0.97
    assert float(found.sparse.double().mean()) > least
    assert float((found.color - truth).abs().amax(0)[found.sparse].max()) <= 0.01
    assert float(found.color.abs().amax(0)[~found.sparse].max()) == 0.0
    assert not bool((found.sparse & ~found.dense).any())
    assert torch.equal(found.dense, found.support >= 1)


def test_the_blend_is_the_surface_colour() -> None:
    wall = analytic_renderer(boxes=())
    observations = [observe(o.view, wall) for o in OBSERVATIONS]
    view = close_up(3)
    rendered = wall(view)
    found = reliable_pixels(view, rendered.depth, rendered.alpha, observations)
    error = (found.blended - rendered.color.permute(2, 0, 1)).abs().amax(0)
    assert bool(found.dense.all())
    assert float(error.max()) < 0.002


@pytest.mark.parametrize("zoom", [3, 9])
def test_a_wrong_depth_is_rejected(zoom: float) -> None:
    """At 27x half a source pixel is 13 of the close-up's pixels: no test of geometry can be sharp (papers.md 1.5)."""
    view = close_up(zoom)
    exact, wrong = run(view), run(view, 1.3)
    assert float(wrong.support.double().mean()) < 0.07 * float(exact.support.double().mean())
    assert float(wrong.sparse.double().mean()) < 0.1 * float(exact.sparse.double().mean())


def test_a_wrong_depth_is_mostly_rejected_far_in_where_the_depth_test_alone_says_nothing() -> None:
    assert float(run(close_up(27), 1.3).support.double().mean()) < 0.3 * len(OBSERVATIONS)


def test_occluded_pixels_are_rejected() -> None:
    """The close-up looks behind the box from the side; a photograph from the front cannot confirm what is there."""
    low, high = BOX
    observation = observe(camera(0.25, 0.0, 0.0))
    behind = camera(0.25, 0.0, 3.75)
    assert high[2] < 3.75 < 4.0
    found = run(behind, observations=[observation])
    points = backproject(behind, RENDER(behind).depth)
    _, z = project(observation.view, points)
    shadow = ((points[..., 0] - 0.25).abs() < 0.14) & (points[..., 1].abs() < 0.18)
    assert bool(shadow.any())
    # The box is 10% nearer than the wall behind it.
    assert not bool(found.dense[shadow].any())
    assert low[2] < float(z[shadow].min())


def test_points_behind_the_camera_never_win() -> None:
    """Seen from beyond the box, the box's pixels would project mirrored and in front of everything."""
    view = camera(0.25, 0.0, 3.8)
    found = run(view)
    truth = RENDER(view).color.permute(2, 0, 1)
    assert bool((reliability._splat(view, OBSERVATIONS, truth).depth > 0).all())
    if bool(found.sparse.any()):
        assert float((found.color - truth).abs().amax(0)[found.sparse].max()) <= 0.01
    backwards = camera(0.0, 0.0, 5.0)
    assert not bool(run(backwards).dense.any())


def test_a_colour_needs_another_photograph_to_confirm_it() -> None:
    view = close_up(3)
    one = OBSERVATIONS[:1]
    assert not bool(run(view, observations=one).sparse.any())
    assert bool(run(view, observations=one).dense.any())


def test_photographs_that_disagree_in_colour_confirm_nothing() -> None:
    tinted = [Observation(o.view, (o.color + 0.2 * i).clamp_max(3.0), o.depth) for i, o in enumerate(OBSERVATIONS)]
    found = run(close_up(3), observations=tinted)
    assert not bool(found.sparse.any())
    assert bool(found.dense.any())


def test_one_odd_photograph_is_left_out_of_the_blend() -> None:
    view = close_up(9)
    odd = [*OBSERVATIONS[:5], Observation(OBSERVATIONS[5].view, 1.0 - OBSERVATIONS[5].color, OBSERVATIONS[5].depth)]
    clean, mixed = run(view, observations=OBSERVATIONS[:5]), run(view, observations=odd)
    plenty = clean.support >= 4
    assert float((clean.blended - mixed.blended).abs().amax(0)[plenty].max()) < 0.02


@pytest.mark.parametrize("first", [True, False])
def test_the_sharpest_photograph_gives_the_colour(first: bool) -> None:
    """A nearer photograph with its own tint, within the colour tolerance, wins wherever its pixels land."""
    near = observe(camera(0.0, 0.0, 1.5))
    tinted = Observation(near.view, near.color + 0.05, near.depth)
    view = camera(0.0, 0.0, 1.5)
    found = run(view, observations=[tinted, *OBSERVATIONS] if first else [*OBSERVATIONS, tinted])
    truth = RENDER(view).color.permute(2, 0, 1)
    inner = found.sparse.clone()
    assert float(inner.double().mean()) > 0.5
    torch.testing.assert_close(found.color[:, inner], (truth + 0.05)[:, inner], atol=1e-6, rtol=0)


def test_a_sharper_photograph_of_what_lies_behind_does_not_shine_through() -> None:
    """A camera behind the box sees the wall at a tiny footprint; the box's coarse pixels are still in front."""
    front, behind = OBSERVATIONS[2:4], observe(camera(0.25, 0.0, 3.75))
    view = camera(0.25, 0.0, 3.0)
    plain, mixed = (run(view, observations=seen) for seen in (front, [*front, behind]))
    assert bool(plain.sparse.any())
    assert torch.equal(plain.sparse, mixed.sparse & plain.sparse)
    torch.testing.assert_close(mixed.color[:, plain.sparse], plain.color[:, plain.sparse])


def test_empty_renders_and_no_photographs_give_nothing() -> None:
    view = close_up(3)
    depth, alpha = RENDER(view).depth, RENDER(view).alpha
    for found in (
        reliable_pixels(view, depth, alpha * 0.4, OBSERVATIONS),
        reliable_pixels(view, depth * 0.0, alpha, OBSERVATIONS),
        reliable_pixels(view, depth * torch.nan, alpha, OBSERVATIONS),
        reliable_pixels(view, depth, alpha, []),
    ):
        assert not bool((found.dense | found.sparse).any())
        assert float(found.color.abs().max()) == float(found.blended.abs().max()) == 0.0


def test_the_result_depends_neither_on_blocks_nor_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    view = facing_views(1, spread=(0.1, 0.1, 0.0), dtype=torch.float32)[0]
    seen = [Observation(o.view.to(dtype=torch.float32), o.color.float(), o.depth.float()) for o in OBSERVATIONS]
    rendered = RENDER(view)
    whole = reliable_pixels(view, rendered.depth, rendered.alpha, seen)
    monkeypatch.setattr(reliability, "_BLOCK_ELEMENTS", 6000)
    parts = reliable_pixels(view, rendered.depth, rendered.alpha, seen)
    assert torch.equal(whole.sparse, parts.sparse)
    assert torch.equal(whole.support, parts.support)
    torch.testing.assert_close(whole.blended, parts.blended)
    assert whole.blended.dtype == torch.float32
