"""The report as a whole: which tables there are, and that damage stays where it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from closeup_ns.bench.output.report import write_report
from tests.bench.made_up import made_up_result
from tests.bench.test_pictures import a_bench

NEAR = {"x": (3.0, {"psnr": 20.0, "dino": 0.5}), "y": (9.0, {"psnr": 10.0, "dino": 0.4})}


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
    assert shown == [*pictures, "plots/other-zoom.png"]
    assert "c, scene flower, seed 0, failed: no \\| memory" in text and "d, scene trex, seed 0, is not finished" in text
    assert "Commit abc1234. closeup-gs bench;" in text and "- flower: split by hand" in text
    for path in written:
        if path.suffix == ".md" and path.parent.name == "tables":
            assert path.read_text() in text
    content = json.loads((tmp_path / "results.json").read_text())
    states = [experiment["state"] for experiment in content["experiments"]]
    assert states == ["done", "done", "done", "failed", "running", "done"]
    assert content["experiments"][0]["folder"] == "experiments/demo/flower/a-seed1"
    assert content["experiments"][0]["means"]["3x"]["psnr"] == 20.25
    assert {path.name for path in written if path.suffix == ".tex"} >= {"demo-table-1.tex", "demo-scales.tex"}
    assert not list(tmp_path.rglob(".*"))


def test_the_same_experiments_make_the_same_report(tmp_path: Path) -> None:
    experiments, _ = a_bench(tmp_path)
    first = {path: path.read_bytes() for path in write_report(tmp_path, experiments, "c")}
    assert {path: path.read_bytes() for path in write_report(tmp_path, experiments, "c")} == first


def test_nothing_but_failures_is_a_report(tmp_path: Path) -> None:
    written = write_report(tmp_path, [made_up_result(tmp_path, "a", state="failed", error="broke")], "c")
    assert "failed: broke" in written[0].read_text()


def test_pictures_that_are_gone_cost_the_pictures_only(tmp_path: Path) -> None:
    experiments, _ = a_bench(tmp_path)
    for experiment in experiments:
        for path in experiment.renders.iterdir():
            path.unlink()
    text = write_report(tmp_path, experiments, "c")[0].read_text()
    assert "scene flower: no picture of far" in text and "demo-flower.png" not in text and "Table 1" in text
