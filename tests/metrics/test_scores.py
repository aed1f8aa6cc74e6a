"""Rows in, means and files out: what is missing is said, never made up."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from closeup_ns.errors import DataError
from closeup_ns.metrics.metric import Metric, MetricOptions, Needs, Provenance
from closeup_ns.metrics.scores import Row, Scores, markdown, read_scores, write_scores
from closeup_ns.metrics.shot import Shot
from closeup_ns.metrics.suite import build_metrics, score


def red(needs: Needs) -> Metric:
    """A metric whose value is known: the mean of the red channel, of the difference where there is something."""
    function = lambda image, against=0: float((image - against)[..., 0].mean())  # noqa: E731
    return Metric(f"red_{needs}", needs, True, Provenance("a test"), function)


def picture(red: int, size: int = 4) -> torch.Tensor:
    filled = torch.zeros(size, size, 3, dtype=torch.uint8)
    filled[..., 0] = red
    return filled


def shots() -> list[Shot]:
    return [
        Shot("far", 1.0, picture(51), truth=picture(0)),
        Shot("near_a", 3.0, picture(102), truth=picture(51), reference=picture(102), reference_name="photo_7"),
        Shot("near_b", 9.0, picture(255)),
    ]


def test_each_metric_sees_what_it_needs_and_means_are_per_scale():
    scores = score(shots(), [red("truth"), red("reference"), red("nothing")])
    values = {row.image: row.values for row in scores.rows}
    assert values["far"] == pytest.approx({"red_truth": 0.2, "red_nothing": 0.2})
    assert values["near_a"] == pytest.approx({"red_truth": 0.2, "red_reference": 0.0, "red_nothing": 0.4})
    assert values["near_b"] == pytest.approx({"red_nothing": 1.0})
    means = scores.means()
    assert list(means) == ["far", "3x", "9x", "close"]
    assert means["close"] == pytest.approx({"red_truth": 0.2, "red_reference": 0.0, "red_nothing": 0.7})
    assert scores.rows[1].reference == "photo_7"


def test_a_metric_that_applies_to_nothing_is_missing_and_never_zero():
    scores = score(shots()[2:], [red("truth"), red("nothing")], missing={"dino": "no weights"})
    assert set(scores.metrics) == {"red_nothing"}
    assert scores.missing["dino"] == "no weights"
    assert "photograph" in scores.missing["red_truth"]
    assert all("red_truth" not in row.values for row in scores.rows)


def test_files_carry_every_row_and_read_back(tmp_path: Path):
    scores = score(shots(), [red("truth"), red("nothing")], about={"run": "a"}, missing={"dino": "no weights"})
    write_scores(scores, tmp_path)
    assert read_scores(tmp_path / "scores.json") == scores
    with open(tmp_path / "scores.csv", newline="") as read:
        table = list(csv.DictReader(read))
    assert [row["image"] for row in table] == ["far", "near_a", "near_b"]
    assert table[2]["red_truth"] == "" and float(table[2]["red_nothing"]) == pytest.approx(1.0)
    written = (tmp_path / "scores.md").read_text()
    assert "| 9x | 1.000 | - |" in written and "dino is missing: no weights" in written
    assert markdown(scores) == written


def test_scores_of_another_schema_are_refused(tmp_path: Path):
    content = Scores([Row("a", 1.0, {})], {}, {}, {}).to_dict()
    (tmp_path / "scores.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(DataError, match="schema 99"):
        read_scores(tmp_path / "scores.json")
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(DataError, match=r"scores\.json"):
        read_scores(tmp_path / "scores.json")


def test_another_size_and_a_name_given_twice_are_errors():
    with pytest.raises(DataError, match="near is 4x4 pixels, its photograph 5x5"):
        score([Shot("near", 3.0, picture(0), truth=picture(0, 5))], [red("truth")])
    with pytest.raises(DataError, match="two images are called far"):
        score([shots()[0], shots()[0]], [red("nothing")])


def test_an_unknown_metric_is_an_error_that_names_the_known():
    with pytest.raises(DataError, match="psnr"):
        build_metrics(["pnsr"], MetricOptions())
