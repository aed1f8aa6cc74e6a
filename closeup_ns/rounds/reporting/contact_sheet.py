"""A round on one picture: what was shown, what was known, what was made of it, and what the model learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from closeup_ns.data.pictures import to_bytes, write_picture
from closeup_ns.rounds.store.view import StoredView

COLUMNS = ("render", "mask", "reliable", "refined", "after fine-tuning")
COLORS = {"accepted": (120, 210, 120), "reliable_only": (235, 190, 90), "rejected": (235, 110, 100)}
BACKGROUND, INK = (24, 24, 27), (225, 225, 225)
REAL_TINT = (0.25, 0.55, 1.0)
IMAGE_WIDTH, GAP, HEADING, CAPTION = 240, 6, 22, 54
"""Pixels: width of each picture, and what lies between, above and below them."""
CHARACTER = 6.2
"""Mean width in pixels of a character of the default font, for breaking lines."""


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One view on the sheet."""

    name: str
    """As in the store."""
    stored: StoredView
    """The view, as the round trained on it."""
    after: Float[Tensor, "H W 3"] | None = None
    """What the model shows after fine-tuning; None where nothing is fine-tuned."""


def save_contact_sheet(path: Path, rows: Sequence[SheetRow], title: str) -> None:
    """Draws a row per view: render, mask, reliable, refined, after fine-tuning, with the gate's verdict below.

    mask is the dense mask (white: geometry agrees with a photograph), tinted blue where the refined colour is a real
    photograph's. reliable shows the sparse real colours that enter the loss. The last column is there where views were
    fine-tuned. Every picture is drawn from the tensors that training read.

    Args:
        path: of a PNG, which appears whole or not at all.
        title: first line, such as "round 1, 3.0x closer".

    Raises:
        DiskError: the disk refuses it.
    """
    columns = COLUMNS if any(row.after is not None for row in rows) else COLUMNS[:-1]
    characters = int((len(columns) * (IMAGE_WIDTH + GAP) - GAP) / CHARACTER)
    shown = [(_pictures(row), _caption(row, characters), COLORS[row.stored.decision.verdict]) for row in rows]
    save_labelled(path, title, columns, shown)


def save_labelled(
    path: Path,
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[Tensor], str, tuple[int, int, int]]],
    width: int = IMAGE_WIDTH,
    caption: int = CAPTION,
) -> None:
    """Pictures in columns, with a heading above each column and text below each row.

    Args:
        path: of a PNG, which appears whole or not at all.
        rows: pictures [H, W, 3] in [0, 1], one per column and of one shape; the text; its colour.
        width: of each picture on the sheet, pixels.
        caption: height of the text, pixels.

    Raises:
        DiskError: the disk refuses it.
    """
    heights = [max(1, round(width * pictures[0].shape[0] / pictures[0].shape[1])) for pictures, _, _ in rows]
    size = GAP + len(columns) * (width + GAP), 2 * HEADING + sum(heights) + caption * len(rows) + GAP
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 5), title, fill=INK)
    for column, heading in enumerate(columns):
        draw.text((GAP + column * (width + GAP), HEADING + 4), heading, fill=INK)
    top = 2 * HEADING
    for (pictures, text, color), height in zip(rows, heights, strict=True):
        for column, picture in enumerate(pictures):
            sheet.paste(_image(picture, width, height), (GAP + column * (width + GAP), top))
        draw.multiline_text((GAP, top + height + 3), text, fill=color, spacing=3)
        top += height + caption
    write_picture(path, sheet)


def _pictures(row: SheetRow) -> list[Tensor]:
    """[H, W, 3] per column, in the order of ``COLUMNS``."""
    stored = row.stored
    mask = stored.reliable.dense.float()[..., None].expand(-1, -1, 3)
    mask = torch.where(stored.real[..., None], 0.5 * mask + 0.5 * mask.new_tensor(REAL_TINT), mask)
    reliable = stored.reliable.color.permute(1, 2, 0) * stored.reliable.sparse[..., None]
    pictures = [stored.render, mask, reliable, stored.image]
    return pictures if row.after is None else [*pictures, row.after]


def _image(values: Tensor, width: int, height: int) -> Image.Image:
    """A picture of so many pixels: averaged down where it is larger, pixels kept square where it is smaller."""
    small = values.detach().float().cpu().permute(2, 0, 1)[None]
    shrinks = small.shape[-1] >= width
    resized = F.interpolate(small, (height, width), mode="area" if shrinks else "nearest")[0]
    return Image.fromarray(to_bytes(resized.permute(1, 2, 0)).numpy())


def _caption(row: SheetRow, characters: int) -> str:
    """Three lines: verdict and reason, the evidence, how it was refined."""
    decision = row.stored.decision
    before, after = ("-" if value is None else f"{value:.1f}" for value in (decision.psnr_before, decision.psnr_after))
    difference = decision.low_frequency_difference
    moved = "-" if difference is None else f"{difference:.3f}"
    verdict = f"{row.name}: {decision.verdict.replace('_', ' ')} ({decision.reason})"
    evidence = (
        f"reliable pixels {before} -> {after} dB | colours moved {moved} | "
        f"known {decision.known_share:.0%}, reliable {decision.reliable_share:.0%}, "
        f"lost {decision.lost_share:.0%}"
    )
    lines = (verdict, evidence, _how(row.stored))
    return "\n".join(line if len(line) <= characters else line[: characters - 3] + "..." for line in lines)


def _how(stored: StoredView) -> str:
    """Time, memory, and what the refiner was shown."""
    record = stored.record
    made = f"{record.refiner}{' (generated)' if record.generates else ''}"
    memory = f"{record.memory_of} peak {record.peak_memory_mb:,.0f} MB"
    together = f"pass {record.pass_number} of {record.frames} pictures" if record.frames > 1 else "by itself"
    references = f" | references: {', '.join(record.references)}" if record.references else ""
    return f"{made}, {together}: {stored.seconds:.1f} s, {memory}{references}"
