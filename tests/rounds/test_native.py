"""Native views against a pattern whose value at every ray is known (issue 11.2)."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from nerfstudio.cameras.camera_utils import fisheye624_unproject_helper
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.datamanagers import full_images_datamanager
from PIL import Image

import closeup_ns.method_config  # noqa: F401  (mends the routine)
from closeup_ns.data.originals import Original
from closeup_ns.errors import DataError
from closeup_ns.rounds.native import crop_view, cut, cut_mask, further_windows, native_rounds, plan_crops, read_original
from closeup_ns.studio.datamanager import CloseupDatamanager
from closeup_ns.views.lens import Lens
from closeup_ns.views.rendered import Rendered, Renderer
from closeup_ns.views.view import View
from closeup_ns.views.warp import camera_rays, pixel_grid, project

WIDTH, HEIGHT = 640, 480
LENSES = {
    "none": Lens(),
    "brown": Lens("perspective", (-0.12, 0.03, 0.01, 0.0, 0.004, -0.003)),
    "fisheye": Lens("fisheye", (0.03, -0.01, 0.004, -0.001, 0.0, 0.0)),
    "fisheye624": Lens(
        "fisheye624", (0.03, -0.01, 0.004, -0.001, 0.0, 0.0, 0.002, -0.003, 0.001, 0.0005, -0.002, 0.0003)
    ),
}


def pattern(xy: np.ndarray) -> np.ndarray:
    """A colour for each ray [..., 2], with waves of about 14 of the original's pixels, [..., 3] in 0 to 255."""
    x, y = xy[..., 0] * 260, xy[..., 1] * 260
    waves = [np.sin(x + 0.4 * y), np.cos(0.9 * y - 0.3 * x), np.sin(0.7 * x - 0.8 * y + 1)]
    return 127.5 + 110 * np.stack(waves, -1)


def an_original(lens: Lens, path: Path = Path("a.png")) -> Original:
    K = ((600.0, 0.0, 330.0), (0.0, 590.0, 236.0), (0.0, 0.0, 1.0))
    return Original(path, path, (WIDTH, HEIGHT), K, lens, None, 4.0)


def rays_of(original: Original) -> np.ndarray:
    """The undistorted ray of each pixel [H, W, 2], by somebody else's inversion of the lens."""
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    K = np.array(original.K)
    bent = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]], -1)
    flat, lens = bent.reshape(-1, 1, 2), original.lens
    if lens.kind == "fisheye":
        out = cv2.fisheye.undistortPoints(flat, np.eye(3), np.array(lens.parameters[:4]))
    elif lens.kind == "fisheye624":
        params = torch.tensor([[1.0, 1.0, 0.0, 0.0, *lens.parameters]], dtype=torch.float64)
        rays = fisheye624_unproject_helper(torch.from_numpy(flat[None, :, 0]), params)[0]
        out = (rays[:, :2] / rays[:, 2:]).numpy()
    elif lens.parameters:
        k1, k2, k3, _, p1, p2 = lens.parameters
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
        out = cv2.undistortPointsIter(flat, np.eye(3), np.array([k1, k2, p1, p2, k3]), None, None, criteria)
    else:
        out = flat
    return np.asarray(out).reshape(HEIGHT, WIDTH, 2)


@functools.cache
def photographed(name: str) -> tuple[Original, np.ndarray]:
    """An original through one of ``LENSES``, and its pixels [H, W, 3]."""
    original = an_original(LENSES[name])
    return original, pattern(rays_of(original)).round().astype(np.uint8)


def photograph_view() -> View:
    """What is trained on: a quarter of the original's size, undistorted."""
    K = torch.tensor([[148.0, 0, 81.0], [0, 147.0, 58.0], [0, 0, 1]])
    return View(K, torch.eye(4), WIDTH // 4, HEIGHT // 4)


def seen_by(view: View, subsamples: int) -> np.ndarray:
    """The pattern averaged over each pixel's area."""
    steps = (np.arange(subsamples) + 0.5) / subsamples
    u = (np.arange(view.width)[:, None] + steps).reshape(-1)
    v = (np.arange(view.height)[:, None] + steps).reshape(-1)
    K = view.K.double().numpy()
    x, y = np.meshgrid((u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1])
    fine = pattern(np.stack([x, y], -1))
    return fine.reshape(view.height, subsamples, view.width, subsamples, 3).mean((1, 3))


def shift_between(image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The displacement (columns, rows) in pixels that explains the difference best, least squares."""
    inner = (slice(2, -2), slice(2, -2))
    dy, dx = np.gradient(expected, axis=(0, 1))
    system = np.stack([-dx[inner].ravel(), -dy[inner].ravel()], 1)
    return np.linalg.lstsq(system, (image - expected)[inner].ravel(), rcond=None)[0]


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("zoom", [1.5, 3, 9])
@pytest.mark.parametrize("center", [(80.0, 60.0), (30.0, 100.0)])
def test_a_crop_shows_the_pattern_to_a_tenth_of_a_native_pixel(
    name: str, zoom: float, center: tuple[float, float]
) -> None:
    original, pixels = photographed(name)
    view = crop_view(photograph_view(), torch.tensor(center), zoom, original)
    image = cut(original, pixels, view).astype(float)
    native = 600 / float(view.K[0, 0])  # native pixels per pixel of the crop
    for part in np.array_split(image, 3), np.array_split(image, 3, axis=1):
        expected = np.array_split(seen_by(view, 4), 3, axis=0 if part[0].shape[0] != image.shape[0] else 1)
        for found, wanted in zip(part, expected, strict=True):
            if min(found.shape[:2]) > 8:
                assert np.abs(shift_between(found, wanted)).max() * native < 0.1
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(image - seen_by(view, 4))[inner].mean() < 3


def test_nerfstudio_undistorts_a_fisheye624_photograph_as_its_crops_are_cut() -> None:
    """Upstream's routine exchanges columns and rows, and shows another part of the pattern."""
    original, pixels = photographed("fisheye624")
    K, distortion = original.K, original.lens.parameters
    lens = (K[0][0], K[1][1], K[0][2], K[1][2], WIDTH, HEIGHT, torch.tensor([distortion]), CameraType.FISHEYE624)
    cameras = Cameras(torch.eye(4)[None, :3], *lens, metadata={"fisheye_crop_radius": 230.0})
    undistort = full_images_datamanager._undistort_image
    K, image, mask = undistort(cameras[0], np.float32(distortion), {}, pixels, np.array(K))
    view = View(torch.from_numpy(K), torch.eye(4), *image.shape[1::-1])
    middle = slice(100, 350)
    assert np.abs(shift_between(image[middle, middle].astype(float), seen_by(view, 4)[middle, middle])).max() < 0.1
    assert mask is not None and mask.shape == (*image.shape[:2], 1)
    assert not np.abs(image - seen_by(view, 4))[mask[..., 0].numpy()].mean() > 3


def test_a_crop_that_is_off_by_a_native_pixel_is_found_out() -> None:
    original, pixels = photographed("brown")
    view = crop_view(photograph_view(), torch.tensor([20.0, 110.0]), 3, original)
    pinhole = Original(original.path, original.path, original.size, original.K, Lens(), None, 4.0)
    shift = shift_between(cut(pinhole, pixels, view).astype(float), seen_by(view, 4))
    assert np.abs(shift).max() * 600 / float(view.K[0, 0]) > 0.1


@pytest.mark.parametrize("zoom,size", [(2, (160, 120)), (4, (160, 120)), (8, (80, 60))])
def test_a_crop_has_the_photographs_pixels_or_as_many_as_the_original_has(zoom: float, size: tuple[int, int]) -> None:
    K = torch.tensor([[150.0, 0, 80.0], [0, 150.0, 60.0], [0, 0, 1]])
    view = View(K, torch.eye(4), 160, 120)
    exact = ((600.0, 0.0, 320.0), (0.0, 600.0, 240.0), (0.0, 0.0, 1.0))
    original = Original(Path("a"), Path("a"), (640, 480), exact, Lens(), None, 4.0)
    crop = crop_view(view, torch.tensor([80.0, 60.0]), zoom, original)
    assert (crop.width, crop.height) == size
    field = torch.tensor([crop.width, crop.height]) / torch.stack([crop.K[0, 0], crop.K[1, 1]])
    assert torch.allclose(field * zoom, torch.tensor([160.0, 120.0]) / 150, rtol=1e-5)


@pytest.mark.parametrize("center", [(0.0, 0.0), (160.0, 120.0), (2.0, 119.0)])
def test_a_crop_is_moved_inside_the_photograph(center: tuple[float, float]) -> None:
    view = photograph_view()
    crop = crop_view(view, torch.tensor(center), 3, an_original(Lens()))
    corners = torch.tensor([[0.0, 0.0], [float(crop.width), float(crop.height)]])
    rays = (corners - crop.K[:2, 2]) / torch.stack([crop.K[0, 0], crop.K[1, 1]])
    back = rays * torch.stack([view.K[0, 0], view.K[1, 1]]) + view.K[:2, 2]
    assert float(back.min()) > -1e-3 and bool((back[1] < torch.tensor([160.001, 120.001])).all())


@pytest.mark.parametrize("finer,rounds", [(8.0, 2), (3.0, 1), (1.0, 0), (1.1, 0), (1.3, 1), (30.0, 3), (300.0, 3)])
def test_rounds_reach_as_far_as_the_originals(finer: float, rounds: int) -> None:
    assert native_rounds(finer, 3.0, 3) == rounds


def test_a_masked_pixel_never_counts_and_a_free_one_does() -> None:
    original = an_original(LENSES["brown"])
    mask = np.full((120, 160), 255, np.uint8)
    mask[:, :70] = 0
    view = crop_view(photograph_view(), torch.tensor([75.0, 60.0]), 3, original)
    counted = cut_mask(original, mask, view)
    hidden = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    hidden[:, : 70 * 4] = 255
    touched = cut(original, hidden, view).any(-1)
    assert counted.any() and not (counted & touched).any()


def test_an_original_with_alpha_is_compared_as_its_photograph_is_shown(tmp_path: Path) -> None:
    """An object on transparent ground: what lies hidden beside it is of no picture; a shift is still found out."""
    data: Any = SimpleNamespace(background=torch.tensor([0.9, 0.2, 0.4]))
    data.before_background = lambda image: CloseupDatamanager.before_background(data, image)
    original = an_original(LENSES["brown"], tmp_path / "a.png")
    disc = np.hypot(*np.meshgrid(np.arange(WIDTH) - 330, np.arange(HEIGHT) - 236)) < 110
    pixels = np.dstack([pattern(rays_of(original)), 255 * disc]).round().astype(np.uint8)
    view, shifted = photograph_view(), np.roll(pixels, (8, -12), (0, 1))
    photograph = data.before_background(torch.from_numpy(cut(original, pixels, view)))
    stripes = np.indices((HEIGHT, WIDTH)).sum(0)[..., None] // 40 % 2 * 255
    crop = crop_view(view, torch.tensor([80.0, 60.0]), 1.2, original)
    for stored in (pixels, shifted):
        stored[..., :3] = np.where(stored[..., 3:] > 0, stored[..., :3], stripes)
        Image.fromarray(stored).save(original.path)
        if stored is pixels:
            assert (read_original(data, original, crop, view, photograph)[0] == stored).all()
    with pytest.raises(DataError, match="lies -3, 2 pixels"):
        read_original(data, original, crop, view, photograph)


def renderer(depth: float):
    def render(view: View) -> Rendered:
        full = torch.full((view.height, view.width), depth)
        return Rendered(torch.zeros(view.height, view.width, 3), full, torch.ones_like(full))

    return render


def test_photographs_that_do_not_see_the_target_give_no_crop() -> None:
    view, original = photograph_view(), an_original(Lens())
    ahead, behind = torch.tensor([0.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, -2.0])
    assert len(plan_crops([view], [original], ahead, 3, renderer(2.0))) == 1
    assert len(plan_crops([view], [original], ahead, 3, renderer(0.5))) == 0  # something stands in front of it
    assert len(plan_crops([view], [original], behind, 3, renderer(2.0))) == 0
    assert len(plan_crops([view], [None], ahead, 3, renderer(2.0))) == 0


def a_board_before_a_wall(behind: float) -> Renderer:
    """A board of 0.04 x 0.04 at z = 2 around the z axis, and a wall at z = 2 + ``behind``."""

    def render(view: View) -> Rendered:
        rays = camera_rays(view, pixel_grid(view.height, view.width)) @ view.c2w[:3, :3].T
        to_board = (2.0 - view.position[2]) / rays[..., 2]
        at = view.position + to_board[..., None] * rays
        board = at[..., :2].abs().amax(-1) <= 0.02
        depth = torch.where(board, to_board, (2.0 + behind - view.position[2]) / rays[..., 2])
        return Rendered(torch.zeros(view.height, view.width, 3), depth, torch.ones(view.height, view.width))

    return render


@pytest.mark.parametrize(
    ("behind", "windows"),
    [
        (0.01, 0),  # the crop shows what a near camera sees of the target's own depth
        (1.0, 8),  # it sees 3.7 windows' width of this wall, 2.5 times as large as the photograph does
        (40.0, 0),  # and this one as large as the photograph, which is enough
    ],
)
def test_further_windows_are_where_a_camera_that_came_nearer_looks(behind: float, windows: int) -> None:
    view, target, render = photograph_view(), torch.tensor([0.0, 0.0, 2.0]), a_board_before_a_wall(behind)
    centers = further_windows(view, target, 9, render)
    middle, _ = project(view, target)
    steps = [(center - middle) / torch.tensor([view.width / 9, view.height / 9]) for center in centers]
    found = {(round(float(step[0]), 3), round(float(step[1]), 3)) for step in steps}
    assert found == ({(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(0, 0)} if windows else set())
    original = an_original(Lens())
    for most in (1, 4):
        assert len(plan_crops([view], [original], target, 9, render, most)) == min(1 + windows, most)
