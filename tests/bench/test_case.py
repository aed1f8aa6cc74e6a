"""A case on disk reads back as it was; one that is not whole is no case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from closeup_ns.bench.case import Case, PreparedCase, read_case
from closeup_ns.errors import DataError


def test_a_round_trip(tmp_path: Path):
    case = Case("zoom", "flower", "a.png:10:20", (1.0, 2.0, 3.0), (2.0,), 1, notes=["a note"], made_with={"seed": 1})
    case.write(tmp_path)
    assert read_case(tmp_path) == PreparedCase(case, tmp_path)


def test_an_unfinished_case_and_another_schema_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no prepared case"):
        read_case(tmp_path)
    Case("zoom", "flower").write(tmp_path)
    content = json.loads((tmp_path / "case.json").read_text())
    (tmp_path / "case.json").write_text(json.dumps({**content, "schema": 0}))
    with pytest.raises(DataError, match="another version"):
        read_case(tmp_path)
