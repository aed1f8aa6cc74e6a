"""The contact sheet shows what training read, in the right place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from closeup_ns.rounds.reporting.contact_sheet import (
    CAPTION,
    COLUMNS,
    GAP,
    HEADING,
    IMAGE_WIDTH,
    SheetRow,
    _caption,
    save_contact_sheet,
)
from closeup_ns.rounds.reporting.held_out import Look, save_sheet
from closeup_ns.rounds.store.view import StoredView
from tests.stored import a_view

HEIGHT = round(IMAGE_WIDTH * 14 / 20)
"""Of the pictures."""


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


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., np.ndarray]:
    """The pixels [H, W, 3] of the sheet of some rows."""

    def drawn(*rows: SheetRow) -> np.ndarray:
        save_contact_sheet(tmp_path / "contact_sheet.png", rows, "round 1")
        with Image.open(tmp_path / "contact_sheet.png") as sheet:
            return np.asarray(sheet, dtype=int)

    return drawn


def cell(sheet: np.ndarray, column: int, top: int = 2 * HEADING, height: int = HEIGHT) -> np.ndarray:
    left = GAP + column * (IMAGE_WIDTH + GAP)
    return sheet[top : top + height, left : left + IMAGE_WIDTH]


def test_the_caption_says_how_the_view_was_refined_and_with_what() -> None:
    lines = _caption(SheetRow("update_00", painted()), 200).split("\n")
    assert lines[0] == "update_00: accepted (because)" and "20.5 -> 21.2 dB" in lines[1]
    assert lines[2] == (
        "see3d (generated), pass 2 of 7 pictures: 0.1 s, GPU peak 1,234 MB | "
        "references: train/frame_00012.png, t0_update_05"
    )
    assert all(len(line) <= 40 for line in _caption(SheetRow("update_00", painted()), 40).split("\n"))


@pytest.mark.parametrize("after", [torch.full((14, 20, 3), 0.5), None], ids=["fine-tuned", "refined again"])
def test_each_picture_in_its_column(draw: Callable[..., np.ndarray], after: torch.Tensor | None) -> None:
    """There is no last column where nothing was fine-tuned."""
    sheet = draw(SheetRow("update_00", painted(), after))
    colors = [(255, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 0), (128, 128, 128)]
    assert len(colors) == len(COLUMNS)
    colors = colors if after is not None else colors[:-1]
    assert sheet.shape[1] == GAP + len(colors) * (IMAGE_WIDTH + GAP)
    for column, color in enumerate(colors):
        assert (cell(sheet, column) == color).all()


def test_real_pixels_are_tinted_in_the_mask(draw: Callable[..., np.ndarray]) -> None:
    view = painted()
    view.real[:, :10] = True
    mask = cell(draw(SheetRow("update_00", view)), 1)
    assert (mask[:, IMAGE_WIDTH // 2 :] == 255).all()
    assert (mask[:, : IMAGE_WIDTH // 2, 0] < mask[:, : IMAGE_WIDTH // 2, 2]).all()


def test_rows_of_different_shapes_and_figures_that_are_missing(draw: Callable[..., np.ndarray]) -> None:
    tall = painted(1, width=10, height=20)
    tall = dataclasses.replace(tall, decision=dataclasses.replace(tall.decision, psnr_before=None, psnr_after=None))
    sheet = draw(SheetRow("update_00", painted()), SheetRow("update_01", tall))
    assert sheet.shape[0] == 2 * HEADING + HEIGHT + 2 * IMAGE_WIDTH + 2 * CAPTION + GAP
    assert (cell(sheet, 0, 2 * HEADING + HEIGHT + CAPTION, 2 * IMAGE_WIDTH) == (255, 0, 0)).all()


def test_held_out_photographs_are_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale above, what each column is, and below each row whose crop it is; larger crops keep their pixels."""
    written: list[str] = []
    for name in ("text", "multiline_text"):
        original = getattr(ImageDraw.ImageDraw, name)

        def noting(self: Any, place: Any, text: str, *args: Any, original: Any = original, **options: Any) -> Any:
            written.append(text)
            return original(self, place, text, *args, **options)

        monkeypatch.setattr(ImageDraw.ImageDraw, name, noting)
    shapes = ((30, 40), (210, 280))
    before, after = Look(), Look()
    for index, (height, width) in enumerate(shapes, start=1):
        dark, grey, white = (torch.full((height, width, 3), value, dtype=torch.uint8) for value in (51, 153, 255))
        before.pictures[index] = f"IMG_{index}.JPG", dark, white
        after.pictures[index] = f"IMG_{index}.JPG", grey, white
    save_sheet(tmp_path / "sheet.png", "round 1, 3x closer", before, after)
    assert set(written) == {
        "round 1, 3x closer", "before the round", "after the round", "photograph", "IMG_1.JPG", "IMG_2.JPG"
    }  # fmt: skip
    with Image.open(tmp_path / "sheet.png") as opened:
        sheet = np.asarray(opened, dtype=int)
    assert sheet.shape[:2] == (2 * HEADING + 2 * (210 + HEADING) + GAP, GAP + 3 * (280 + GAP))
    for row in range(2):
        top = 2 * HEADING + row * (210 + HEADING)
        for column, level in enumerate((51, 153, 255)):
            left = GAP + column * (280 + GAP)
            assert (sheet[top : top + 210, left : left + 280] == level).all()
