"""Comparison grids, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.bench.output.pictures import Look, comparison_grid, looks, most_detail, scene_of, with_inset
from closeup_ns.bench.output.results import load_results
from closeup_ns.bench.scenes.prepared import PreparedScene, SceneRecord
from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.evaluation.drawing import BACKGROUND, panel_corner
from closeup_ns.views.view import look_at
from tests.bench.made_up import made_up_result

SIZE = (96, 72)


def noise(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(40, 30), (9, 30), (5, 4)])
def test_most_detail_by_brute_force(size: tuple[int, int]) -> None:
    picture, side = noise(4, size), 8
    x0, y0, x1, y1 = most_detail(picture, side)
    w, h = min(side, size[0]), min(side, size[1])
    assert (x1 - x0, y1 - y0) == (w, h) and x0 >= 0 and x1 <= size[0] and y0 >= 0 and y1 <= size[1]
    luma = picture @ np.array([0.299, 0.587, 0.114])
    energy = np.zeros_like(luma)
    energy[:-1] += (luma[1:] - luma[:-1]) ** 2
    energy[:, :-1] += (luma[:, 1:] - luma[:, :-1]) ** 2
    sums = {(x, y): energy[y : y + h, x : x + w].sum() for y in range(size[1] - h + 1) for x in range(size[0] - w + 1)}
    assert sums[x0, y0] == pytest.approx(max(sums.values()))


@pytest.mark.parametrize("crop", [(3, 5, 13, 15), (80, 60, 90, 70), (80, 2, 90, 12), (2, 60, 12, 70)])
def test_the_inset_is_the_crop_enlarged_in_the_corner_opposite(crop: tuple[int, int, int, int]) -> None:
    picture = noise(1)
    x0, y0, x1, y1 = crop
    shown = with_inset(picture, crop, SIZE, factor=3)
    enlarged = picture[y0:y1, x0:x1].repeat(3, 0).repeat(3, 1)
    left, top = (0 if x0 > 48 else 66), (0 if y0 > 36 else 42)
    np.testing.assert_array_equal(shown[top + 2 : top + 28, left + 2 : left + 28], enlarged[2:-2, 2:-2])
    assert (shown[y0, x0:x1] == (255, 196, 0)).all() and (shown[y0:y1, x1 - 1] == (255, 196, 0)).all()
    untouched = np.ones(shown.shape[:2], bool)
    untouched[y0:y1, x0:x1] = untouched[top : top + 30, left : left + 30] = False
    np.testing.assert_array_equal(shown[untouched], picture[untouched])


def test_the_inset_leaves_half_of_a_small_picture() -> None:
    shown = with_inset(np.zeros((40, 40, 3), np.uint8), (0, 0, 16, 16), (40, 40))
    assert (shown[24:, 24:].reshape(-1, 3).max(0) == (255, 196, 0)).all()
    assert not shown[17:24, 17:24].any()


def test_the_grid_has_a_row_per_camera_and_a_column_per_method() -> None:
    truth, a, b = noise(0), noise(1), noise(2)
    rows = [
        Look("far", 1.0, {"a": a}, {"a": "PSNR 1 dB"}, truth),
        Look("near", 3.0, {"a": b, "b": truth}, {}, None, noise(3), (10, 10, 30, 25)),
    ]
    grid = np.asarray(comparison_grid(rows, {"a": "A", "b": "B"}, width=SIZE[0]))

    def panel(row: int, column: int) -> np.ndarray:
        x, y = panel_corner(row, column, SIZE, True)
        return grid[y : y + SIZE[1], x : x + SIZE[0]]

    assert (panel(0, 0) == BACKGROUND).all() and (panel(1, 1) == BACKGROUND).all() and (panel(0, 3) == BACKGROUND).all()
    crop = most_detail(truth)
    np.testing.assert_array_equal(panel(0, 1), with_inset(truth, crop, SIZE))
    np.testing.assert_array_equal(panel(0, 2), with_inset(a, crop, SIZE))
    mean = most_detail(np.mean([b.astype(float), truth.astype(float)], axis=0).astype(np.uint8))
    np.testing.assert_array_equal(panel(1, 2), with_inset(b, mean, SIZE))
    np.testing.assert_array_equal(panel(1, 3), with_inset(truth, mean, SIZE))
    photograph = panel(1, 0)
    assert (photograph[8, 8:32] == (255, 196, 0)).all() and (photograph[8:27, 31] == (255, 196, 0)).all()
    np.testing.assert_array_equal(photograph[12:24, 12:29], noise(3)[12:24, 12:29])
    x, y = panel_corner(0, 2, SIZE, True)
    assert (grid[y + SIZE[1] + 1 : y + SIZE[1] + 20, x : x + 90] != BACKGROUND).any(), "PSNR stands below"


def test_columns_that_no_row_has_are_left_out() -> None:
    grid = comparison_grid([Look("x", 9.0, {"a": noise(0)}, {})], {"a": "A"}, width=SIZE[0])
    assert grid.size == (SIZE[0] + 12, SIZE[1] + 26 + 12)


def a_bench(out: Path) -> tuple[list, PreparedScene]:
    """A scene with a far and a near camera, and two methods, one of which lacks a picture."""
    folder = out / "scenes" / "demo" / "flower"
    K = torch.tensor([[80.0, 0, 48], [0, 80.0, 36], [0, 0, 1]], dtype=torch.float64)
    up, target = torch.tensor([0.0, 0, 1], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    views = [look_at(torch.tensor([0.0, -d, 0.0], dtype=torch.float64), target, up, K, *SIZE) for d in (3.0, 1.0, 3.1)]
    for path in (folder / "truth" / "far.png", folder / "truth" / "near.png", folder / "capture" / "images" / "p.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(len(path.name))).save(path)
    cameras = [EvalCamera("far", 1.0, views[0], folder / "truth" / "far.png")]
    cameras += [EvalCamera(name, 3.0, views[1], folder / "truth" / "near.png") for name in ("near", "near2")]
    write_cameras(folder / "cameras.json", cameras)
    photo = EvalCamera("p", 1.0, views[2], folder / "capture" / "images" / "p.png")
    write_cameras(folder / "capture" / "transforms.json", [photo])
    scene = SceneRecord("demo", "flower", target_point=(0.0, 0.0, 0.0))
    scene.write(folder)
    images = {"far": (1.0, {"psnr": 30.0}), "near": (3.0, {"psnr": 20.5}), "near2": (3.0, {"psnr": 20.0})}
    experiments = [made_up_result(out, method, images, seed=seed) for method, seed in (("a", 1), ("a", 0), ("b", 0))]
    for number, experiment in enumerate(experiments):
        experiment.renders.mkdir(parents=True)
        for name in images:
            if (experiment.method, name) != ("b", "near"):
                Image.fromarray(noise(10 * number + len(name))).save(experiment.renders / f"{name}.png")
    return experiments, PreparedScene(scene, folder)


def test_looks_take_the_camera_that_most_methods_have_with_truth_and_photograph(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    assert scene_of(experiments[0], tmp_path) == scene
    rows, problems = looks(load_results(experiments), scene)
    assert not problems and [row.name for row in rows] == ["far", "near2"]
    far, near = rows
    assert far.photograph is None and far.truth is not None and far.below["a"] == "PSNR 30.00 dB"
    np.testing.assert_array_equal(near.renders["a"], noise(15))  # of seed 0, which comes first
    np.testing.assert_array_equal(near.truth, noise(8))
    np.testing.assert_array_equal(near.photograph, noise(5))
    assert near.region is not None
    x0, y0, x1, y1 = near.region
    assert x0 < 48 < x1 and y0 < 36 < y1 and 25 < x1 - x0 < 40  # a 96 pixel wide view from a third of the distance


def test_a_damaged_picture_costs_its_row_only(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    (experiments[1].renders / "far.png").write_bytes(b"no picture")
    rows, problems = looks(load_results(experiments), scene)
    assert [row.name for row in rows] == ["near2"]
    assert len(problems) == 1 and "no picture of far" in problems[0]


def test_without_its_case_there_are_the_renders(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    (scene.folder / "scene.json").unlink()
    assert scene_of(experiments[0], tmp_path) is None
    rows, problems = looks(load_results(experiments), None)
    assert not problems and all(row.truth is None and row.photograph is None for row in rows)
