"""The report as a whole: which tables there are, and that damage stays where it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from closeup_ns.bench.output.report import in_order, write_report
from closeup_ns.bench.output.results import load_results
from closeup_ns.errors import CloseupError
from tests.bench.made_up import made_up_result
from tests.bench.test_pictures import a_bench

NEAR = {"x": (3.0, {"psnr": 20.0, "dino": 0.5}), "y": (9.0, {"psnr": 10.0, "dino": 0.4})}


def test_rows_are_in_the_order_given_whatever_the_scenes_order(tmp_path: Path) -> None:
    experiments = [
        made_up_result(tmp_path, m, NEAR, scene) for m, scene in (("b", "t"), ("a", "t"), ("a", "s"), ("b", "s"))
    ]
    ordered = [(result.experiment.method, result.experiment.scene) for result in in_order(load_results(experiments))]
    assert ordered == [("b", "s"), ("b", "t"), ("a", "s"), ("a", "t")]


def test_everything_is_written_and_shown(tmp_path: Path) -> None:
    experiments, _ = a_bench(tmp_path)
    experiments.append(made_up_result(tmp_path, "c", state="failed", error="Traceback\nno | memory"))
    experiments.append(made_up_result(tmp_path, "d", state="running", scene="trex"))
    experiments.append(made_up_result(tmp_path, "d", NEAR, protocol="other", scene_notes=["split by hand"]))
    written = write_report(tmp_path, experiments, "closeup-gs bench")
    assert all(path.is_file() for path in written) and len(set(written)) == len(written)
    text = written[0].read_text()
    shown = re.findall(r"!\[[^]]*]\(<([^>]+)>\)", text)
    pictures = ["plots/demo-zoom.png", "pictures/demo-flower.png", "pictures/demo-flower-dive.png"]
    pictures += ["plots/demo-flower-spectrum.png"]
    assert shown == [*pictures, "plots/other-zoom.png"]
    assert "c, scene flower, seed 0, failed: no \\| memory" in text and "d, scene trex, seed 0, is not finished" in text
    assert "Commit abc1234. closeup-gs bench;" in text and "- flower: split by hand" in text
    for path in written:
        if path.suffix == ".md" and path.parent.name == "tables":
            assert path.read_text() in text
    content = json.loads((tmp_path / "results.json").read_text())
    assert [experiment["state"] for experiment in content["experiments"]] == [
        "done",
        "done",
        "done",
        "failed",
        "running",
        "done",
    ]
    assert content["experiments"][0]["folder"] == "experiments/demo/flower/a-seed0"
    assert content["experiments"][0]["means"]["3x"]["psnr"] == 20.25
    assert {table["name"] for table in content["tables"]["demo"]} == {"table-1", "scales"}
    assert not list(tmp_path.rglob(".*"))


def test_the_same_experiments_make_the_same_report(tmp_path: Path) -> None:
    experiments, _ = a_bench(tmp_path)
    first = {path: path.read_bytes() for path in write_report(tmp_path, experiments, "c")}
    repeated = [experiments[1], experiments[0], experiments[2]]  # rows in the same order, seeds in another
    assert {path: path.read_bytes() for path in write_report(tmp_path, repeated, "c")} == first


def test_nothing_but_failures_is_a_report_and_no_experiments_are_an_error(tmp_path: Path) -> None:
    written = write_report(tmp_path, [made_up_result(tmp_path, "a", state="failed", error="broke")], "c")
    assert "failed: broke" in written[0].read_text()
    with pytest.raises(CloseupError, match="no experiments"):
        write_report(tmp_path, [])


def test_pictures_that_are_gone_cost_the_pictures_only(tmp_path: Path) -> None:
    experiments, _ = a_bench(tmp_path)
    for experiment in experiments:
        for path in experiment.renders.iterdir():
            path.unlink()
    text = write_report(tmp_path, experiments, "c")[0].read_text()
    assert "scene flower: no picture of far" in text and "demo-flower.png" not in text and "Table 1" in text
