"""The demo on disk: cameras as promised, points on true surfaces, no trace of the truth; and its photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.demo.camera import SCALES, rays_through
from closeup_ns.data.demo.layout import on_sheet, still_life
from closeup_ns.data.demo.photo import PhotoModel
from closeup_ns.data.demo.render import linear_to_srgb, srgb_to_linear
from closeup_ns.data.eval_cameras import EvalCamera, read_cameras
from closeup_ns.data.ply import read_ply
from closeup_ns.views.warp import inside, project
from tests.data.demo_small import CLOSE, FAR, FINER, SIZE, small_demo, small_world, write_small_demo


def far_cameras(folder: Path) -> list[EvalCamera]:
    return read_cameras(folder / "capture/transforms.json")


def capture_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "capture").rglob("*") if path.is_file())


def test_the_parser_trains_on_the_small_photographs_and_the_originals_are_beside_them() -> None:
    """Shrinking an original gives the small photograph, but for the grain of two JPEGs."""
    folder, scene = small_demo()
    parsed = (
        CloseupDataParserConfig(data=folder / "capture", max_image_size=SIZE[0]).setup().get_dataparser_outputs("train")
    )
    assert len(parsed.image_filenames) == FAR - 2
    assert {path.parent.name for path in parsed.image_filenames} == {f"images_{FINER}"}
    assert int(parsed.cameras.width[0]) == SIZE[0]
    for small in parsed.image_filenames[:3]:
        original = Image.open(folder / "capture/images" / small.name).resize(SIZE, Image.Resampling.LANCZOS)
        difference = np.asarray(original, np.float64) - np.asarray(Image.open(small), np.float64)
        assert np.abs(difference).mean() < 4


def test_nothing_in_the_capture_leads_to_the_truth() -> None:
    folder, scene = small_demo()
    for path in capture_files(folder):
        assert not path.is_symlink()
        data = path.read_bytes()
        for word in (b"truth", b"closeup", b"target", str(folder).encode()):
            assert word not in data, f"{path} contains {word!r}"
    assert {path.suffix for path in capture_files(folder)} == {".json", ".jpg", ".ply"}


def test_distances_and_aims_are_as_promised() -> None:
    folder, scene = small_demo()
    target = np.asarray(scene.target)
    listed = set(json.loads((folder / "capture/transforms.json").read_text())["train_filenames"])
    far = [(f"images/{c.name}.jpg", np.linalg.norm(c.view.position.numpy() - target)) for c in far_cameras(folder)]
    assert scene.d0 == pytest.approx(np.median([d for name, d in far if name in listed]), rel=1e-12)
    assert min(d for _, d in far) > 0.8 * scene.d0
    for camera in far_cameras(folder):
        offset = target - camera.view.position.numpy()
        assert offset @ camera.view.forward.numpy() > 0.95 * np.linalg.norm(offset)
        assert float(camera.view.c2w[2, 1]) < 0  # y is down in the image: no photograph stands on its head
    for t in read_cameras(folder / "truth/cameras.json"):
        distance = np.linalg.norm(t.view.position.numpy() - target)
        assert abs(distance * t.scale / scene.d0 - 1) <= 0.08 + 1e-9


def test_some_far_photographs_have_the_target_region_behind_an_occluder() -> None:
    folder, scene = small_demo()
    target, hidden = np.asarray(scene.target), 0
    spread = 0.03 * np.random.default_rng(0).standard_normal((20, 3)) * [1, 0, 1]
    for camera in far_cameras(folder):
        view = camera.view
        offset = target + spread - view.position.numpy()
        reach = small_world().distance(
            np.repeat(view.position.numpy()[None], 20, 0), offset / np.linalg.norm(offset, axis=1, keepdims=True)
        )
        hidden += bool((reach < np.linalg.norm(offset, axis=1) - 0.05).any())
    assert 2 <= hidden < FAR


def test_sparse_points_lie_on_the_surfaces_that_the_photographs_see() -> None:
    folder, scene = small_demo()
    cloud = read_ply(folder / "capture/sparse_pc.ply")
    points = np.asarray(cloud.xyz, np.float64)
    assert len(points) > 500
    view = far_cameras(folder)[FAR // 2].view.scaled_to(*SIZE)
    uv, z = project(view, torch.from_numpy(points))
    shown = inside(view, uv, z).numpy()
    reach = small_world().distance(*rays_through(view, uv.numpy()[shown]))
    distance = np.linalg.norm(points[shown] - view.position.numpy(), axis=1)
    on_surface = np.abs(reach - distance) < 0.01
    hidden = reach < distance - 0.01
    assert on_surface.mean() > 0.75
    assert (on_surface | hidden).mean() > 0.95  # hidden from this photograph, perhaps, but not floating before it
    assert (distance_to_surfaces(points) < 4 * 0.0008).mean() > 0.99


def distance_to_surfaces(points: np.ndarray) -> np.ndarray:
    """Distance [N] to the nearest flat cell of the scene: closed form, without rays."""
    nearest = np.full(len(points), np.inf)
    for surface in still_life(3):
        for i in range(len(surface.bottom) - 1):
            edges = np.stack([surface.bottom[i + 1] - surface.bottom[i], surface.top[i] - surface.bottom[i]], 1)
            inside = np.clip((points - surface.bottom[i]) @ np.linalg.pinv(edges).T, 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(surface.bottom[i] + inside @ edges.T - points, axis=1))
    return nearest


def test_the_click_is_on_the_target() -> None:
    folder, scene = small_demo()
    click = json.loads((folder / "demo.json").read_text())["click"]
    view = next(camera.view for camera in far_cameras(folder) if f"{camera.name}.jpg" == click["photo"])
    origin, direction = rays_through(view.scaled_to(*SIZE), np.array([[click["column"], click["row"]]]))
    hit = origin[0] + small_world().distance(origin, direction)[0] * direction[0]
    np.testing.assert_allclose(hit, scene.target, atol=2e-3)
    assert f"images/{click['photo']}" in json.loads((folder / "capture/transforms.json").read_text())["train_filenames"]


def test_the_image_agrees_with_its_camera() -> None:
    """The label is pale and the board around the sheet is dark: both where the camera says that they are."""
    folder, scene = small_demo()
    for camera in far_cameras(folder)[5:8]:
        view = camera.view
        image = np.asarray(Image.open(camera.truth).convert("L"), np.float64)
        places = torch.from_numpy(np.stack([on_sheet(200, 26, 0), on_sheet(120, -4, -0.012)]))
        paper, board = (image[row, column] for column, row in project(view, places)[0].long().tolist())
        assert paper > board + 60, camera.name


def test_the_same_seed_gives_the_same_files_but_for_training_photographs_whose_exposures_drift(tmp_path: Path) -> None:
    """Their mean exposure stays that of the held-out photographs and close-ups."""
    folder, scene = small_demo()
    told: list[None] = []
    write_small_demo(tmp_path, exposure_drift=0.5, advance=lambda: told.append(None))
    assert len(told) == FAR + CLOSE * len(SCALES)
    train = set(json.loads((folder / "capture/transforms.json").read_text())["train_filenames"])
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 2 * FAR + CLOSE * len(SCALES) + 4
    stops = []
    for name in files:
        if f"images/{name.name}" not in train:
            assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name
        elif name.parent.name == "images":
            before, after = (np.asarray(Image.open(root / name)) / 255.0 for root in (folder, tmp_path))
            usable = (before > 0.2) & (before < 0.8) & (after > 0.1) & (after < 0.9)
            ratio = (after[usable] + 0.055) / (before[usable] + 0.055)  # of sRGB
            stops.append(2.4 * float(np.log2(np.median(ratio))))
    assert len(stops) == FAR - 2 and abs(np.mean(stops)) < 0.03 and 0.3 < np.std(stops) < 0.7


@pytest.mark.parametrize("level", [0.0, 0.05, 0.8])
def test_noise_is_shot_plus_read_noise(level: float) -> None:
    photo = PhotoModel(full_well=5000, read_noise=8)
    flat = np.full((200, 300, 3), level, np.float32)
    error = photo.noise(flat, np.random.default_rng(1)).astype(np.float64) - level
    expected = level / 5000 + (8 / 5000) ** 2
    assert error.mean() == pytest.approx(0, abs=5 * np.sqrt(expected / error.size))
    assert error.var() == pytest.approx(expected, rel=0.02)


def test_gamma_is_srgb_both_ways() -> None:
    linear = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(linear)), linear, atol=2e-6)
    # Published values of IEC 61966-2-1: mid grey, and the end of the straight part.
    np.testing.assert_allclose(linear_to_srgb(np.array([0.214041, 0.0031308], np.float32)), [0.5, 0.04045], atol=1e-5)
    np.testing.assert_allclose(linear_to_srgb(np.array([-0.5, 2.0], np.float32)), [0.0, 1.0], atol=1e-6)


def test_a_flat_wall_is_photographed_at_its_exposure() -> None:
    photo = PhotoModel(exposure=2.0)
    flat = np.full((40, 48, 3), 0.1073, np.float32)
    image = photo.develop(flat)
    assert image.shape == (20, 24, 3) and image.dtype == np.uint8
    assert set(np.unique(image)) == {128}
    brighter = PhotoModel(exposure=4.0).develop(flat)
    expected = linear_to_srgb(np.array([0.4292], np.float32))[0] * 255
    np.testing.assert_allclose(brighter, expected, atol=1)
