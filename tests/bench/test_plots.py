"""What plots hold, read off the axes before anything is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from closeup_ns.bench.output.plots import quality_figure, save_figure, styles, views_figure, views_table
from closeup_ns.bench.output.results import load_results, methods_of
from tests.bench.made_up import made_up_result


def zoomed(*psnr: float) -> dict:
    return {f"i{s}": (s, {"psnr": value, "ssim": value / 100}) for s, value in zip((1.0, 3.0, 27.0), psnr)}


def test_quality_has_a_panel_per_metric_and_a_line_per_method(tmp_path: Path) -> None:
    experiments = [made_up_result(tmp_path, "closeup-gs", zoomed(30, 20, 10 + seed), seed=seed) for seed in (0, 2)]
    experiments.append(made_up_result(tmp_path, "mine", zoomed(31, 19), label="Mine"))
    experiments.append(made_up_result(tmp_path, "3dgs", state="failed"))
    results = load_results(experiments)
    look = styles(methods_of(results))
    figure = quality_figure(results, look)
    assert [axes.get_ylabel() for axes in figure.axes] == ["PSNR (dB) ↑", "SSIM ↑"]
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.get_xticklabels()] == ["far", "3x", "27x"]
    lines = [container[0] for container in axes.containers]  # type: ignore[index]
    assert [line.get_color() for line in lines] == [look["closeup-gs"].color, look["mine"].color]
    np.testing.assert_allclose(lines[0].get_xydata(), [[1, 30], [3, 20], [27, 11]])
    np.testing.assert_allclose(lines[1].get_xydata(), [[1, 31], [3, 19]])
    bars = axes.containers[0][2][0].get_segments()  # type: ignore[index]
    np.testing.assert_allclose([bar[:, 1] for bar in bars][2], [11 - 2**0.5, 11 + 2**0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["closeup-gs", "Mine"]


def test_figure_5(tmp_path: Path) -> None:
    experiments = []
    for kind, add in (("select", 1.0), ("random", 0.0)):
        for views in (16, 2):
            images = {"x": (3.0, {"psnr": 20 + add + views / 10})}
            experiments.append(made_up_result(tmp_path, f"{kind}-{views}", images, seconds={"refine": 3.0 * views}))
    experiments.append(made_up_result(tmp_path, "base", {"x": (3.0, {"psnr": 5.0})}))
    results = load_results(experiments)
    assert views_table(results).loc["select"]["seconds"].to_dict() == {2: 6.0, 16: 48.0}
    left, right = views_figure(results).axes
    data = [container[0].get_xydata().tolist() for container in left.containers]  # type: ignore[index]
    assert data == [[[2, 21.2], [16, 22.6]], [[2, 20.2], [16, 21.6]]]
    assert [c[0].get_xydata().tolist() for c in right.containers] == [[[2, 6], [16, 48]]] * 2  # type: ignore[index]
    assert not len(views_table(load_results(experiments[-1:])))


def test_no_two_methods_look_alike() -> None:
    methods = ["closeup-gs", *(f"m{n}" for n in range(21))]
    looks = styles(methods)
    assert len(set(looks.values())) == 22 and looks["closeup-gs"] == styles(methods[::-1])["closeup-gs"]


def test_plots_are_files_and_equal_ones_are_equal(tmp_path: Path) -> None:
    results = load_results([made_up_result(tmp_path, "3dgs", zoomed(30))])  # one scale is enough
    paths = [save_figure(quality_figure(results, styles(["3dgs"])), tmp_path / name) for name in ("a", "b.c")]
    assert [path.name for path in paths[1]] == ["b.c.png", "b.c.svg"]
    for one, other in zip(*paths):
        assert one.read_bytes() == other.read_bytes()
    with Image.open(paths[0][0]) as image:
        assert image.width > 400
    assert "<svg" in paths[0][1].read_text()
