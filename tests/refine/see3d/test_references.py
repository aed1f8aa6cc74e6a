"""The references' windows: what is in them, and that nothing is squashed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from closeup_ns.refine.imaging.sizes import Tile, cut, tiles
from closeup_ns.refine.protocol import GuideImage
from closeup_ns.refine.see3d.references import (
    Window,
    reference_crop,
    reference_crops,
    reference_window,
    shown_share,
    surface_points,
)
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from closeup_ns.views.warp import project, unproject
from tests.refine.scene import BOX, WALL, camera, close_up, seen

SIDES = st.integers(1, 900)


def wall_points(view: View, left: float, top: float, right: float, bottom: float, count: int = 200) -> Tensor:
    """World points one unit behind the window (left, top) to (right, bottom) of the view's picture."""
    uv = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[left, top], [right, bottom], [left, bottom], [right, top]])
    uv = torch.cat([uv * torch.tensor([right - left, bottom - top]) + torch.tensor([left, top]), corners])
    return unproject(view, uv, torch.ones(len(uv)))


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.sampled_from([64, 128, 512]), st.sampled_from([64, 256, 512]), st.integers(0, 9999))
def test_windows_hold_what_is_shared_as_large_as_it_may_be(
    width: int, height: int, tall: int, wide: int, seed: int
) -> None:
    view = camera(0, 0, 0, width, height)
    a, b = torch.rand(2, 2, generator=torch.Generator().manual_seed(seed)) * torch.tensor([width, height])
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    points = unproject(view, low + torch.rand(300, 2) * (high - low), torch.ones(300))
    window = reference_window(view, points, tall, wide)
    fit, fill = min(tall / height, wide / width), max(tall / height, wide / width)
    assert (window.height, window.width) == (tall, wide)
    assert fit - 1e-9 <= window.scale <= max(1.0, fill) + 1e-9, "never coarser than the whole, nor blown up for nothing"
    for start, size, length in ((window.top, tall, height), (window.left, wide, width)):
        scaled = round(length * window.scale)
        assert (start <= 0 and start + size >= scaled) or (start >= 0 and start + size <= scaled)
    # The middle nine tenths of the points are in the window.
    uv = project(view, points)[0] * window.scale - torch.tensor([window.left, window.top])
    within = ((uv > -1.5) & (uv < torch.tensor([wide, tall]) + 1.5)).all(1)
    assert float(within.float().mean()) > 0.9


def test_the_scale_is_the_finest_at_which_the_shared_part_fits() -> None:
    view = camera(0, 0, 0, 2000, 1000)
    # 500 pixels wide, 256 of which have room: half the scale; the window's middle is that of the shared part.
    window = reference_window(view, wall_points(view, 900, 400, 1400, 500), 256, 256)
    assert window.scale == pytest.approx(256 / 500, rel=0.05)
    middle = (window.left + 128) / window.scale, (window.top + 128) / window.scale
    assert middle == (pytest.approx(1150, abs=10), pytest.approx(450, abs=10))
    # 100 pixels would have room at 2.5 times the scale, but the photograph has no more to show.
    assert reference_window(view, wall_points(view, 900, 400, 1000, 450), 256, 256).scale == 1.0
    # At the corner the window stays inside.
    corner = reference_window(view, wall_points(view, 1900, 0, 2000, 50), 256, 256)
    assert (corner.top, corner.left, corner.scale) == (0, 2000 - 256, 1.0)


def test_a_small_reference_fills_the_window_and_is_continued_where_it_cannot() -> None:
    view = camera(0, 0, 0, 200, 100)
    detail = reference_window(view, wall_points(view, 80, 40, 90, 50), 256, 256)
    assert detail.scale == 2.56 and detail.top == 0 and 0 <= detail.left <= 512 - 256
    whole = reference_window(view, wall_points(view, 0, 0, 200, 100), 256, 256)
    assert whole.scale == pytest.approx(1.28, rel=0.05) and whole.top == pytest.approx(-64, abs=4)
    edges = torch.cat([wall_points(view, 0, 0, 1, 100), wall_points(view, 199, 0, 200, 100)])
    assert reference_window(view, edges, 256, 256).scale == 1.28, "there is no more than the whole picture"
    crop = reference_crop(torch.rand(3, 100, 200), Window(1.28, -64, 0, 256, 256))
    assert torch.equal(crop[:, 0], crop[:, 60]) and not torch.equal(crop[:, 60], crop[:, 70])


@pytest.mark.parametrize("points", ["none", "behind", "beside", "a speck"])
def test_a_reference_that_does_not_show_the_tile_gives_its_whole_picture(points: str) -> None:
    view = camera(0, 0, 0, 640, 480)
    away = {
        "none": torch.zeros(0, 3),
        "behind": torch.tensor([[0.0, 0.0, -2.0]]).expand(9, 3),
        "beside": torch.tensor([[50.0, 0.0, 2.0]]).expand(9, 3),
        "a speck": torch.cat([torch.tensor([[50.0, 0.0, 2.0]]).expand(99, 3), torch.tensor([[0.0, 0.0, 2.0]])]),
    }[points]
    assert reference_window(view, away, 256, 256) == Window(0.4, -32, 0, 256, 256)


def test_at_its_own_scale_a_reference_gives_its_own_pixels(generator: torch.Generator) -> None:
    image = torch.rand(3, 300, 400, generator=generator)
    assert torch.equal(reference_crop(image, Window(1.0, 20, 130, 128, 64)), image[:, 20:148, 130:194])
    beyond = reference_crop(image, Window(1.0, -50, 0, 400, 400))
    assert torch.equal(beyond, cut(image, Tile(-50, 0, 400, 400), "replicate"))


def test_enlarging_and_shrinking_keep_places() -> None:
    position = (torch.arange(300) + 0.5) / 300
    ramp = position.expand(3, 300, 300)
    larger = reference_crop(ramp, Window(2.0, 100, 200, 128, 128))
    torch.testing.assert_close(larger[0, 5], ((torch.arange(128) + 200.5) / 600), atol=1e-5, rtol=0)
    smaller = reference_crop(ramp, Window(0.5, 20, 10, 128, 128))
    torch.testing.assert_close(smaller[0, 5], ((torch.arange(128) + 10.5) / 150), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 700), (700, 1), (1, 1), (3, 2), (64, 64)])
def test_references_of_any_size(size: tuple[int, int]) -> None:
    width, height = size
    view = camera(0, 0, 0, width, height)
    guide = GuideImage("a", view, torch.full((height, width, 3), 0.25), True)
    points = torch.rand(50, 3) + torch.tensor([-0.5, -0.5, 2.0])
    crops = reference_crops([guide, guide], points, 128, 64)
    assert crops.shape == (2, 3, 128, 64)
    torch.testing.assert_close(crops, torch.full_like(crops, 0.25))


def test_a_broken_pixel_of_a_reference_does_not_reach_the_network() -> None:
    image = torch.rand(64, 64, 3) * 3 - 1
    image[3, 3] = torch.nan
    image[4, 4] = torch.inf
    crops = reference_crops([GuideImage("a", camera(0, 0, 0, 64, 64), image, True)], torch.zeros(0, 3), 64, 64)
    assert float(crops.min()) >= 0 and float(crops.max()) <= 1


def test_surface_points_are_on_what_the_tile_shows() -> None:
    view, render = close_up(3)
    for tile in [*tiles(view.height, view.width, 64, 0), Tile(0, 0, 128, 128)]:
        points = surface_points(view, render, tile)
        assert len(points) > 300
        assert all(any(abs(z - plane) < 1e-4 for plane in (WALL, BOX)) for z in points[:, 2].tolist())
        uv = project(view, points)[0]
        assert (uv >= torch.tensor([tile.left, tile.top])).all()
        assert (uv <= torch.tensor([tile.left + tile.width, tile.top + tile.height])).all()
        assert (uv <= torch.tensor([view.width, view.height])).all(), "not in the padding"
    thin = Rendered(render.color, render.depth, render.alpha * 0.4)
    assert surface_points(view, thin, Tile(0, 0, 64, 64)).shape == (0, 3)
    hollow = Rendered(render.color, render.depth * torch.inf, render.alpha)
    assert surface_points(view, hollow, Tile(0, 0, 64, 64)).shape == (0, 3)


def test_shown_share_counts_what_is_in_the_picture() -> None:
    view = camera(0, 0, 0, 100, 100)
    points = torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 2.0], [9.0, 0.0, 2.0], [0.0, 0.0, -2.0]])
    assert shown_share(view, points) == 0.5 and shown_share(view, points[:0]) == 0.0


@pytest.mark.parametrize("corner", [0, 1, 2, 3])
def test_a_tiles_window_in_a_far_photograph_shows_the_same_part_of_the_wall(corner: int) -> None:
    view = camera(-0.4, 0.3, WALL - WALL / 3, 256, 192)
    color, depth = seen(view, 2)
    render = Rendered(color.permute(1, 2, 0), depth, torch.ones_like(depth))
    tile = tiles(192, 256, 128, 0)[corner]
    far = camera(0.1, 0.1, 0.0, 384, 288)
    guide = GuideImage("far", far, seen(far, 2)[0].permute(1, 2, 0), True)
    points = surface_points(view, render, tile)
    window = reference_window(far, points, 128, 128)
    assert window.scale == 1.0
    crop = reference_crops([guide], points, 128, 128)[0]
    # The photograph's pixels are twice as large on the wall: where they land in the crop, colours agree.
    uv = (project(far, points)[0] - torch.tensor([window.left, window.top])).floor().long()
    there = project(view, points)[0].floor().long()
    difference = crop[:, uv[:, 1], uv[:, 0]] - color[:, there[:, 1], there[:, 0]]
    assert float(difference.abs().median()) < 0.05
