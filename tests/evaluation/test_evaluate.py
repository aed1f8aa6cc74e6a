"""From pictures on disk to scores: right pairs, right references, and every way that a folder can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.data.eval_cameras import EvalCamera
from closeup_ns.data.pictures import write_picture
from closeup_ns.errors import DataError
from closeup_ns.evaluation.evaluate import EvaluationConfig, evaluate, references_by_depth, references_by_point
from closeup_ns.evaluation.pictures import find_renders, read_picture, render_cameras
from closeup_ns.metrics.dino import DinoScore
from closeup_ns.metrics.metric import Provenance
from closeup_ns.metrics.suite import METRICS
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View, move_closer
from tests.scenes import analytic_renderer, facing_views

TARGET = torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64)
RENDER = analytic_renderer(boxes=())
PLAIN = EvaluationConfig(metrics=("psnr", "ssim"))


def cameras(folder: Path) -> list[EvalCamera]:
    """Two far views and two close-ups with their photographs, all of the analytic wall."""
    views = facing_views(4, spread=(0.5, 0.3, 0.1))
    close = [move_closer(view, TARGET, scale) for view, scale in zip(views[2:], (3.0, 9.0), strict=True)]
    named = zip(("far_a", "far_b", "near", "nearer"), (1.0, 1.0, 3.0, 9.0), [*views[:2], *close], strict=True)
    made = [EvalCamera(name, scale, view, folder / "truth" / f"{name}.png") for name, scale, view in named]
    for camera in made:
        assert camera.truth is not None
        write_picture(camera.truth, RENDER(camera.view).color)
    return made


def darker(view: View) -> Rendered:
    """The truth, darker by 0.1 wherever that is possible without clipping."""
    rendered = RENDER(view)
    return Rendered(rendered.color - 0.05, rendered.depth, rendered.alpha)


def test_a_known_error_gives_the_known_psnr_per_scale(tmp_path: Path):
    made = cameras(tmp_path)
    render_cameras(darker, made, tmp_path / "renders")
    scores = evaluate(made, tmp_path / "renders", PLAIN)
    assert list(scores.means()) == ["far", "3x", "9x", "close"]
    for values in scores.means().values():
        assert values["psnr"] == pytest.approx(-20 * np.log10(0.05), abs=0.3)  # rounding to 8 bits
    assert [row.image for row in scores.rows] == [camera.name for camera in made]


def test_renders_that_are_there_are_kept_and_others_suffixes_are_found(tmp_path: Path):
    made = cameras(tmp_path)
    render_cameras(RENDER, made[:1], tmp_path / "renders")
    before = (tmp_path / "renders" / "far_a.png").stat().st_mtime_ns
    render_cameras(darker, made, tmp_path / "renders")
    assert (tmp_path / "renders" / "far_a.png").stat().st_mtime_ns == before
    Image.fromarray(read_picture(tmp_path / "renders" / "near.png").numpy()).save(tmp_path / "renders" / "near.jpg")
    (tmp_path / "renders" / "near.png").unlink()
    assert find_renders(made, tmp_path / "renders")["near"].name == "near.jpg"


def without_photographs(made: list[EvalCamera], renders: Path) -> None:
    made[:] = [replace(camera, truth=None) for camera in made]


Change = Callable[[list[EvalCamera], Path], object]
REFUSED: list[tuple[Change, str]] = [
    (lambda made, renders: [(renders / f"{name}.png").unlink() for name in ("near", "nearer")],
     "2 of 4 cameras: near, nearer"),
    (lambda made, renders: shutil.rmtree(renders), "no folder"),
    (lambda made, renders: write_picture(renders / "near.png", torch.zeros(10, 20, 3, dtype=torch.uint8)),
     r"near\.png is 20x10 pixels, its camera 160x120"),
    (lambda made, renders: (renders.parent / "truth/far_a.png").unlink(), r"far_a\.png"),
    (without_photographs, "psnr: no camera has a photograph"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_what_cannot_be_scored_is_named(change: Change, said: str, tmp_path: Path):
    made, renders = cameras(tmp_path), tmp_path / "renders"
    render_cameras(RENDER, made, renders)
    change(made, renders)
    with pytest.raises(DataError, match=said):
        evaluate(made, renders, PLAIN)


def test_nan_in_a_render_is_an_error_that_counts_the_pixels(tmp_path: Path):
    def broken(view: View) -> Rendered:
        color = RENDER(view).color.clone()
        color[3, 4:6] = float("nan")
        return Rendered(color, RENDER(view).depth, RENDER(view).alpha)

    made = cameras(tmp_path)
    with pytest.raises(DataError, match="far_a has 2 pixels that are NaN"):
        render_cameras(broken, made, tmp_path / "renders")
    assert not (tmp_path / "renders" / "far_a.png").exists()


def test_close_ups_are_compared_with_the_photograph_that_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With an encoder of mean colours the score of a render of the truth is that of reference and truth."""
    made = cameras(tmp_path)
    photographs = [(camera.view, camera.truth) for camera in made[:2] if camera.truth is not None]
    stub = METRICS["dino"].metric(Provenance("a stub"), DinoScore(lambda pixels: pixels.mean((2, 3))))
    monkeypatch.setattr("closeup_ns.metrics.dino.dino_metric", lambda spec, options: stub)
    assert METRICS["dino"].build == "closeup_ns.metrics.dino:dino_metric"
    render_cameras(RENDER, made, tmp_path / "renders")
    by_depth = references_by_depth(made[2:], photographs, RENDER)
    by_point = references_by_point(made[2:], photographs, TARGET)
    assert by_depth == by_point and by_depth.keys() == {"near", "nearer"}
    scores = evaluate(made, tmp_path / "renders", EvaluationConfig(metrics=("psnr", "dino")), by_depth)
    assert {row.image for row in scores.rows if "dino" in row.values} == {"near", "nearer"}
    assert all(row.reference in ("far_a.png", "far_b.png") for row in scores.rows if row.scale > 1)
