"""The report as a whole: which tables there are, and that damage stays where it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from closeup_ns.bench.report import in_order, paper_tables, write_report
from closeup_ns.bench.results import load_results, methods_of
from closeup_ns.errors import CloseupError
from tests.bench.made_up import made_up_cell
from tests.bench.test_pictures import a_bench

NEAR = {"x": (3.0, {"psnr": 20.0, "dino": 0.5}), "y": (9.0, {"psnr": 10.0, "dino": 0.4})}


def names(tmp_path: Path, methods: list[str], images: dict | None = None) -> list[str]:
    results = load_results([made_up_cell(tmp_path, method, images or NEAR) for method in methods])
    return [table.name for table in paper_tables(in_order(results), "")[0]]


def test_tables_are_those_that_the_rows_make(tmp_path: Path) -> None:
    assert names(tmp_path, ["base", "closeup-gs"]) == ["table-1", "table-2", "scales"]
    assert names(tmp_path, ["base", "reliable"]) == ["table-2", "table-3", "scales"]
    assert names(tmp_path, ["base", "select-2", "random-2"]) == ["table-2", "figure-5", "scales"]
    assert names(tmp_path, ["somebody's"]) == ["table-1", "table-2", "scales"]


def test_rows_of_the_tables(tmp_path: Path) -> None:
    every = ["random-2", "no-densify", "reliable", "closeup-gs", "base", "3dgs", "mine"]
    results = in_order(load_results([made_up_cell(tmp_path, method, NEAR) for method in every]))
    rows = {table.name: [row.method for row in table.rows] for table in paper_tables(results, "")[0]}
    assert sorted(rows["table-1"]) == ["3dgs", "base", "closeup-gs", "mine"]
    assert sorted(rows["table-2"]) == ["3dgs", "base", "closeup-gs", "mine", "no-densify"]
    assert sorted(rows["table-3"]) == ["base", "reliable"]
    assert sorted(rows["figure-5"]) == ["base", "random-2"]
    assert rows["scales"] == methods_of(results) and set(every) == set(rows["scales"])


def test_rows_are_in_the_order_given_whatever_the_scenes_order(tmp_path: Path) -> None:
    cells = [made_up_cell(tmp_path, m, NEAR, scene) for m, scene in (("b", "t"), ("a", "t"), ("a", "s"), ("b", "s"))]
    ordered = [(result.cell.method, result.cell.scene) for result in in_order(load_results(cells))]
    assert ordered == [("b", "s"), ("b", "t"), ("a", "s"), ("a", "t")]


def test_table_2_without_its_metrics_is_named_with_the_reason(tmp_path: Path) -> None:
    images = {name: (scale, {"psnr": 1.0}) for name, scale in (("x", 3.0), ("y", 9.0))}
    results = load_results([made_up_cell(tmp_path, "base", images, missing={"dino": "no weights"})])
    tables, absent = paper_tables(results, "")
    assert "table-2" not in [table.name for table in tables]
    assert absent == ["Table 2 is not here: no weights"]


def test_everything_is_written_and_shown(tmp_path: Path) -> None:
    cells, _ = a_bench(tmp_path)
    cells.append(made_up_cell(tmp_path, "c", state="failed", error="Traceback\nno | memory"))
    cells.append(made_up_cell(tmp_path, "d", state="running", scene="trex"))
    cells.append(made_up_cell(tmp_path, "d", NEAR, protocol="other", case_notes=["split by hand"]))
    written = write_report(tmp_path, cells, "closeup-gs bench")
    assert all(path.is_file() for path in written) and len(set(written)) == len(written)
    text = written[0].read_text()
    shown = re.findall(r"!\[[^]]*]\(<([^>]+)>\)", text)
    pictures = ["plots/demo-zoom.png", "pictures/demo-flower.png", "plots/demo-flower-spectrum.png"]
    assert shown == [*pictures, "plots/other-zoom.png"]
    assert "c, scene flower, seed 0, failed: no \\| memory" in text and "d, scene trex, seed 0, is not finished" in text
    assert "Commit abc1234; closeup-gs bench;" in text and "- flower: split by hand" in text
    for path in written:
        if path.suffix == ".md" and path.parent.name == "tables":
            assert path.read_text() in text
    content = json.loads((tmp_path / "results.json").read_text())
    assert [cell["state"] for cell in content["cells"]] == ["done", "done", "done", "failed", "running", "done"]
    assert content["cells"][0]["folder"] == "cells/demo/flower/a-seed0"
    assert content["cells"][0]["means"]["3x"]["psnr"] == 20.25
    assert {table["name"] for table in content["tables"]["demo"]} == {"table-1", "scales"}
    assert not list(tmp_path.rglob(".*"))


def test_the_same_cells_make_the_same_report(tmp_path: Path) -> None:
    cells, _ = a_bench(tmp_path)
    first = {path: path.read_bytes() for path in write_report(tmp_path, cells, "c")}
    again = [cells[1], cells[0], cells[2]]  # rows in the same order, seeds in another
    assert {path: path.read_bytes() for path in write_report(tmp_path, again, "c")} == first


def test_nothing_but_failures_is_a_report_and_no_cells_are_an_error(tmp_path: Path) -> None:
    written = write_report(tmp_path, [made_up_cell(tmp_path, "a", state="failed", error="broke")], "c")
    assert "failed: broke" in written[0].read_text()
    with pytest.raises(CloseupError, match="no cells"):
        write_report(tmp_path, [])


def test_pictures_that_are_gone_cost_the_pictures_only(tmp_path: Path) -> None:
    cells, _ = a_bench(tmp_path)
    for cell in cells:
        for path in cell.renders.iterdir():
            path.unlink()
    text = write_report(tmp_path, cells, "c")[0].read_text()
    assert "scene flower: no picture of far" in text and "demo-flower.png" not in text and "Table 1" in text
