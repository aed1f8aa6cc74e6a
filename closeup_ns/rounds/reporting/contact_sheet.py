"""A round on one picture: what was shown, what was known, what was made of it, and what the model learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from closeup_ns.atomic import atomic_path
from closeup_ns.rounds.store.view import StoredView

COLUMNS = ("render", "mask", "reliable", "refined", "after fine-tuning")
COLORS = {"accepted": (120, 210, 120), "reliable_only": (235, 190, 90), "rejected": (235, 110, 100)}
BACKGROUND, INK, NOTHING = (24, 24, 27), (225, 225, 225), (40, 40, 44)
REAL_TINT = (0.25, 0.55, 1.0)
GAP, HEADING, CAPTION = 6, 22, 54
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
    """What the model shows after fine-tuning; None where it was not rendered."""


def contact_sheet(rows: Sequence[SheetRow], title: str = "", cell_width: int = 240) -> Image.Image:
    """Draws a row per view: render, mask, reliable, refined, after fine-tuning, with the gate's verdict below.

    mask is the dense mask (white: geometry agrees with a photograph), tinted blue where the refined colour is a real
    photograph's. reliable shows the sparse real colours that enter the loss. The last column is there where anything
    was fine-tuned. Every picture is drawn from the tensors that training read.

    Args:
        rows: may be empty, which gives the headings alone.
        title: first line, such as "round 1, 3.0x closer".
        cell_width: width of each picture in pixels; heights follow the views.
    """
    heights = [max(1, round(cell_width * row.stored.view.height / row.stored.view.width)) for row in rows]
    columns = COLUMNS if not rows or any(row.after is not None for row in rows) else COLUMNS[:-1]
    width = GAP + len(columns) * (cell_width + GAP)
    sheet = Image.new("RGB", (width, 2 * HEADING + sum(height + CAPTION for height in heights) + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    draw.text((GAP, 5), title or "contact sheet", fill=INK, font=font)
    for column, heading in enumerate(columns):
        draw.text((GAP + column * (cell_width + GAP), HEADING + 4), heading, fill=INK, font=font)
    top = 2 * HEADING
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(_pictures(row)[: len(columns)]):
            place = (GAP + column * (cell_width + GAP), top)
            if picture is None:
                draw.rectangle((*place, place[0] + cell_width - 1, top + height - 1), fill=NOTHING)
                draw.text((place[0] + 8, top + 8), "not rendered", fill=INK, font=font)
            else:
                sheet.paste(_image(picture, cell_width, height), place)
        decision = row.stored.decision
        text = _caption(row, int((width - 2 * GAP) / CHARACTER))
        draw.multiline_text((GAP, top + height + 3), text, fill=COLORS[decision.verdict], font=font, spacing=3)
        top += height + CAPTION
    return sheet


def save_contact_sheet(path: Path, rows: Sequence[SheetRow], title: str = "", cell_width: int = 240) -> None:
    """Writes the sheet as a PNG, whole or not at all.

    Raises:
        DiskError: the disk refuses it.
    """
    sheet = contact_sheet(rows, title, cell_width)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _pictures(row: SheetRow) -> list[Tensor | None]:
    """[H, W, 3] per column, in the order of ``COLUMNS``."""
    stored = row.stored
    mask = stored.reliable.dense.float()[..., None].expand(-1, -1, 3)
    mask = torch.where(stored.real[..., None], 0.5 * mask + 0.5 * mask.new_tensor(REAL_TINT), mask)
    reliable = stored.reliable.color.permute(1, 2, 0) * stored.reliable.sparse[..., None]
    return [stored.render, mask, reliable, stored.image, row.after]


def _image(values: Tensor, width: int, height: int) -> Image.Image:
    """A picture of the cell's size: averaged down where it is larger, pixels kept square where it is smaller."""
    small = values.detach().float().cpu().permute(2, 0, 1)[None]
    shrinks = small.shape[-1] >= width
    resized = F.interpolate(small, (height, width), mode="area" if shrinks else "nearest")[0]
    levels = (torch.nan_to_num(resized).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())


def _caption(row: SheetRow, characters: int) -> str:
    """Three lines: verdict and reason, the evidence, how it was refined."""
    decision = row.stored.decision
    before, after, moved = (
        "-" if value is None else format(value, digits)
        for value, digits in (
            (decision.psnr_before, ".1f"),
            (decision.psnr_after, ".1f"),
            (decision.low_frequency_difference, ".3f"),
        )
    )
    verdict = f"{row.name}: {decision.verdict.replace('_', ' ')} ({decision.reason})"
    evidence = (
        f"reliable pixels {before} -> {after} dB | colours moved {moved} | "
        f"known {decision.known_share:.0%}, reliable {decision.reliable_share:.0%}, "
        f"lost {decision.lost_share:.0%}"
    )
    lines = (verdict, evidence, _how(row.stored))
    return "\n".join(line if len(line) <= characters else line[: characters - 3] + "..." for line in lines)


def _how(stored: StoredView) -> str:
    """Time, memory, and what the refiner was shown; the time alone where an earlier version refined it."""
    record = stored.record
    if record is None:
        return f"{stored.seconds:.1f} s"
    made = f"{record.refiner}{' (generated)' if record.generates else ''}"
    memory = f"{record.memory_of} peak {record.peak_memory_mb:,.0f} MB"
    together = f"pass {record.pass_number} of {record.frames} pictures" if record.frames > 1 else "by itself"
    references = f" | references: {', '.join(record.references)}" if record.references else ""
    return f"{made}, {together}: {stored.seconds:.1f} s, {memory}{references}"
