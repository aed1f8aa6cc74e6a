"""The contact sheet shows what training read, in the right place."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.errors import DiskError
from closeup_ns.rounds.reporting.contact_sheet import (
    BACKGROUND,
    CAPTION,
    COLORS,
    COLUMNS,
    GAP,
    HEADING,
    NOTHING,
    SheetRow,
    _caption,
    contact_sheet,
    save_contact_sheet,
)
from closeup_ns.rounds.store.view import StoredView
from tests.stored import a_view

CELL = 60


def painted(seed: int = 0, **options: Any) -> StoredView:
    """A view whose pictures are each one colour."""
    view = a_view(seed, **options)
    view.render[:] = torch.tensor([1.0, 0.0, 0.0])
    view.image[:] = torch.tensor([0.0, 1.0, 0.0])
    view.reliable.sparse[:] = True
    view.reliable.color[:] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    view.reliable.dense[:] = True
    view.real[:] = False
    return view


def cell(sheet: Image.Image, column: int, top: int, height: int) -> np.ndarray:
    left = GAP + column * (CELL + GAP)
    return np.asarray(sheet)[top : top + height, left : left + CELL]


def test_the_caption_says_how_the_view_was_refined_and_with_what() -> None:
    lines = _caption(SheetRow("update_00", painted()), 200).split("\n")
    assert lines[0] == "update_00: accepted (because)" and "20.5 -> 21.2 dB" in lines[1]
    assert lines[2] == (
        "see3d (generated), pass 2 of 7 pictures: 0.1 s, GPU peak 1,234 MB | "
        "references: train/frame_00012.png, t0_update_05"
    )
    assert all(len(line) <= 40 for line in _caption(SheetRow("update_00", painted()), 40).split("\n"))


def test_each_picture_in_its_column() -> None:
    after = torch.full((14, 20, 3), 0.5)
    sheet = contact_sheet([SheetRow("update_00", painted(), after)], "round 1", CELL)
    height = round(CELL * 14 / 20)
    colors = [(255, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 0), (128, 128, 128)]
    assert len(colors) == len(COLUMNS)
    for column, color in enumerate(colors):
        assert (cell(sheet, column, 2 * HEADING, height) == color).all()


def test_a_missing_after_is_shown_as_missing() -> None:
    rows = [SheetRow("update_00", painted()), SheetRow("update_01", painted(), torch.full((14, 20, 3), 0.5))]
    picture = cell(contact_sheet(rows, "", CELL), 4, 2 * HEADING, 42)
    assert (picture[-1] == NOTHING).all()


def test_no_column_where_nothing_was_fine_tuned() -> None:
    """A round that is refined again trains nothing."""
    rows = [SheetRow("update_00", painted()), SheetRow("update_01", painted())]
    sheet = contact_sheet(rows, "", CELL)
    assert sheet.width == GAP + (len(COLUMNS) - 1) * (CELL + GAP)
    assert (cell(sheet, len(COLUMNS) - 2, 2 * HEADING, 42) == (0, 255, 0)).all()


@pytest.mark.parametrize("verdict", ["accepted", "reliable_only", "rejected"])
def test_the_verdict_has_its_colour(verdict: Any) -> None:
    sheet = contact_sheet([SheetRow("update_00", painted(verdict=verdict))], "", CELL)
    caption = np.asarray(sheet, dtype=int)[2 * HEADING + 42 : 2 * HEADING + 42 + CAPTION].reshape(-1, 3)
    # Letters are anti-aliased, so the colour is approached, not always reached.
    distance = {name: np.abs(caption - color).sum(1).min() for name, color in COLORS.items()}
    assert min(distance, key=lambda name: distance[name]) == verdict
    assert distance[verdict] < 60


def test_real_pixels_are_tinted_in_the_mask() -> None:
    view = painted()
    view.real[:, :10] = True
    mask = cell(contact_sheet([SheetRow("update_00", view)], "", CELL), 1, 2 * HEADING, 42)
    assert (mask[:, CELL // 2 :] == 255).all()
    assert (mask[:, : CELL // 2, 0] < mask[:, : CELL // 2, 2]).all()


def test_rows_of_different_shapes_and_figures_that_are_missing() -> None:
    tall = painted(1, width=10, height=20)
    tall = dataclasses.replace(tall, decision=dataclasses.replace(tall.decision, psnr_before=None, psnr_after=None))
    rows = [SheetRow("update_00", painted()), SheetRow("update_01", tall)]
    sheet = contact_sheet(rows, "", CELL)
    assert sheet.height == 2 * HEADING + 42 + 120 + 2 * CAPTION + GAP
    assert (cell(sheet, 0, 2 * HEADING + 42 + CAPTION, 120) == (255, 0, 0)).all()
    assert contact_sheet([], "", CELL).getpixel((0, 0)) == BACKGROUND


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "contact_sheet.png"
    save_contact_sheet(path, [SheetRow("update_00", painted(), torch.zeros(14, 20, 3))], "round 1", CELL)
    before = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.width == GAP + len(COLUMNS) * (CELL + GAP)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"contact_sheet\.png: No space left"):
        save_contact_sheet(path, [], "round 2", CELL)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["contact_sheet.png"]
