"""Means over common images, against sums written out by brute force."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.bench.output.results import compare, last_line, load_results
from tests.bench.made_up import made_up_result

SCALES = {"a": 1.0, "b": 3.0, "c": 3.0, "d": 9.0}
runs = st.dictionaries(
    st.tuples(st.sampled_from("MN"), st.sampled_from(("s", "t")), st.integers(0, 1)),
    st.dictionaries(st.sampled_from("abcd"), st.floats(-5, 5), max_size=4),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(runs)
def test_means_are_over_the_images_that_every_method_and_seed_has(experiments: dict) -> None:
    with TemporaryDirectory() as folder:
        results = load_results(
            [
                made_up_result(Path(folder), m, {i: (SCALES[i], {"psnr": v}) for i, v in images.items()}, scene, seed)
                for (m, scene, seed), images in experiments.items()
            ]
        )
    found = compare(results, "psnr", "close")
    rows = {}
    for (method, scene, seed), images in experiments.items():
        for image, value in images.items():
            if SCALES[image] > 1:
                rows.setdefault((method, seed), {})[scene, image] = value
    everything = {key for values in rows.values() for key in values}
    common = {key for key in everything if all(key in values for values in rows.values())}
    assert (found.images, found.of) == (len(common), len(everything))
    assert set(found.means.index) == {method for method, _ in rows}
    assert found.comparable == bool(common)
    for method, (mean, spread) in zip(found.means.index, found.means.to_numpy()):
        per_seed = []
        for (own, _), values in rows.items():
            if own == method:
                kept = {key: value for key, value in values.items() if not common or key in common}
                scenes = {scene for scene, _ in kept}
                per_seed.append(np.mean([np.mean([v for (s, _), v in kept.items() if s == scene]) for scene in scenes]))
        assert mean == pytest.approx(np.mean(per_seed), abs=1e-12)
        assert np.isnan(spread) if len(per_seed) == 1 else spread == pytest.approx(np.std(per_seed, ddof=1), abs=1e-12)
    for method, scenes in found.lacking.items():
        own = [values for (name, _), values in rows.items() if name == method]
        assert set(scenes) == {key[0] for key in everything if not all(key in values for values in own)}


def test_a_row_without_any_image_does_not_narrow_the_others_and_one_with_fewer_does(tmp_path: Path) -> None:
    full = {"x": (3.0, {"psnr": 10.0}), "y": (3.0, {"psnr": 30.0})}
    experiments = [
        made_up_result(tmp_path, "whole", full),
        made_up_result(tmp_path, "none", {"x": (3.0, {"ssim": 0.5})}),
        made_up_result(tmp_path, "broken", state="failed", error="Traceback:\n  no memory\n\n"),
    ]
    before = compare(load_results(experiments), "psnr", "3x")
    assert before.means["mean"]["whole"] == 20 and before.images == before.of == 2 and not before.lacking
    half = made_up_result(tmp_path, "half", {"x": (3.0, {"psnr": 5.0}), "y": (3.0, {"psnr": 777.0})})
    half.scores.write_text(half.scores.read_text().replace("777.0", "Infinity"))  # as another program may write it
    experiments.append(half)
    after = compare(load_results(experiments), "psnr", "3x")
    assert after.means["mean"]["whole"] == 10 and (after.images, after.of) == (1, 2)
    assert after.lacking == {"half": ["flower"]}


def test_unreadable_scores_are_a_problem_of_that_experiment_alone(tmp_path: Path) -> None:
    gone = made_up_result(tmp_path, "gone")
    bad = made_up_result(tmp_path, "bad", {"x": (1.0, {"psnr": 1.0})})
    bad.scores.write_text("{")
    good = made_up_result(tmp_path, "good", {"x": (1.0, {"psnr": 1.0})})
    found = load_results([gone, bad, good])
    assert [result.scores is None for result in found] == [True, True, False]
    assert "scores.json does not exist" in found[0].problem and "scores.json cannot be read" in found[1].problem


def test_figures_made_in_two_ways_are_not_ranked(tmp_path: Path) -> None:
    images = {"x": (3.0, {"dino": 0.5})}
    experiments = [made_up_result(tmp_path, "a", images), made_up_result(tmp_path, "b", images, implementation="other")]
    assert not compare(load_results(experiments), "dino", "close").comparable
    assert compare(load_results(experiments[:1]), "dino", "close").comparable


def test_last_line() -> None:
    assert last_line("a\n b \n\n") == "b"
    assert last_line("") == ""
    assert last_line("x" * 300) == "x" * 237 + "..."
