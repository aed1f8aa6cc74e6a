"""Comparison grids and dives, read off the axes before they are saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from closeup_ns.bench.output.pictures import Look, comparison_grid, dive_picture, looks, scene_of
from closeup_ns.bench.output.results import load_results
from closeup_ns.bench.scenes.prepared import PreparedScene, SceneRecord
from closeup_ns.data.eval_cameras import EvalCamera, write_cameras
from closeup_ns.views.view import look_at
from tests.bench.made_up import made_up_result

SIZE = (96, 72)


def noise(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def test_the_grid_has_a_row_per_camera_and_a_column_per_method() -> None:
    truth, a, b = noise(0), noise(1), noise(2)
    rows = [Look("far", 1.0, {"a": a}, {"a": "PSNR 1 dB"}, truth), Look("near", 3.0, {"a": b, "b": truth}, {})]
    panels = comparison_grid(rows, {"a": "A", "b": "B"}).axes
    shown = {axes.get_title(): axes for axes in panels}
    assert [*shown] == ["truth, far", "A, far", "B, far: none", "truth, 3x: none", "A, 3x", "B, 3x"]
    expected = {"truth, far": truth, "A, far": a, "A, 3x": b, "B, 3x": truth}
    for title, picture in expected.items():
        np.testing.assert_array_equal(shown[title].get_images()[0].get_array(), picture)
    assert [title for title, axes in shown.items() if axes.get_images()] == [*expected]
    assert shown["A, far"].get_xlabel() == "PSNR 1 dB"


def test_the_dive_frames_in_a_far_photograph_what_each_close_up_shows(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    rows, _ = looks(load_results(experiments), scene)
    figure = dive_picture(rows, {"a": "A", "b": "B"}, scene)
    assert figure is not None
    photograph, *panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["A", "B", "truth, 3x"]
    (frame,) = photograph.patches
    third = np.array([[32, 24], [64, 24], [64, 48], [32, 48]]) - 0.5  # from a third of the distance
    np.testing.assert_allclose(frame.get_xy()[:4], third)
    assert dive_picture(rows[:1], {"a": "A"}, scene) is None and dive_picture(rows, {"a": "A"}, None) is None


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


def test_looks_take_the_camera_that_most_methods_have_with_its_truth(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    assert scene_of(experiments[0], tmp_path) == scene
    rows, problems = looks(load_results(experiments), scene)
    assert not problems and [row.name for row in rows] == ["far", "near2"]
    far, near = rows
    assert far.truth is not None and far.below["a"] == "PSNR 30.00 dB"
    np.testing.assert_array_equal(near.renders["a"], noise(15))  # of seed 0, which comes first
    np.testing.assert_array_equal(near.truth, noise(8))


def test_a_damaged_picture_costs_its_row_only(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    (experiments[1].renders / "far.png").write_bytes(b"no picture")
    rows, problems = looks(load_results(experiments), scene)
    assert [row.name for row in rows] == ["near2"]
    assert len(problems) == 1 and "no picture of far" in problems[0]


def test_without_its_scene_there_are_the_renders(tmp_path: Path) -> None:
    experiments, scene = a_bench(tmp_path)
    (scene.folder / "scene.json").unlink()
    assert scene_of(experiments[0], tmp_path) is None
    rows, problems = looks(load_results(experiments), None)
    assert not problems and all(row.truth is None for row in rows)
