"""Held-out photographs at full size: the ground truth of close-ups that every capture with originals has (issue 11.7).

Nothing that trains or decides may look at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape
from torch import Tensor

from closeup_ns.data.pictures import to_bytes
from closeup_ns.errors import DataError
from closeup_ns.progress import track
from closeup_ns.rounds.native import cut, cut_mask, native_rounds, plan_crops, read_original
from closeup_ns.rounds.reporting.contact_sheet import HEADING, IMAGE_WIDTH, INK, save_labelled
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import mean_or_none, psnr
from closeup_ns.views.registration import register
from closeup_ns.views.view import View

COLUMNS = ("before the round", "after the round", "photograph")
MOST_ROUNDS = 9
"""Of scales, as far as originals reach."""
SHEET_ROWS = 4
"""Most held-out photographs in a picture of a round."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A held-out photograph, or a native crop of one."""

    number: int
    """0 for the photograph as it is trained on, t for a crop of round t."""
    view: View
    image: Float[Tensor, "H W 3"]
    """In [0, 1]."""
    counted: Bool[Tensor, "H W"] | None
    """Pixels that count; None: all."""
    name: str = ""
    """File of the photograph that a crop was cut from."""
    photograph: int = 0
    """Its index in the evaluation split."""

    def render(self, run: Run, registered: bool = False) -> Float[Tensor, "H W 3"]:
        """What the model shows, with the pixel of this stream.

        Args:
            registered: from where the photograph fits the model best, instead of its pose as given. Poses as given are
                off by native pixels, and the training photographs' were refined: of a close-up the score as given
                measures the pose at least as much as the picture.
        """
        show = partial(run.model.render_view, stream=self.number)
        view = register(show, self.view, self.image, self.counted).view if registered else self.view
        return show(view).color.clamp(0, 1)


def held_out_rounds(run: Run) -> range:
    """The rounds, however many were trained, at whose scale the originals of held-out photographs say something new."""
    found = [original.finer for original in run.photographs.eval_originals() if original is not None]
    return range(1, native_rounds(max(found, default=0.0), run.settings.schedule.zoom, MOST_ROUNDS) + 1)


@dataclass(frozen=True, eq=False)
class Look:
    """How a model shows native crops of held-out photographs."""

    crops: list[tuple[int, View]] = field(default_factory=list)
    """Those that could be cut, as `plan_held_out` has them."""
    psnr: float | None = None
    """Mean in dB from the poses as given; None of none."""
    registered: float | None = None
    """The same after registration, where that was asked for."""
    pictures: dict[int, tuple[str, UInt8[Tensor, "H W 3"], UInt8[Tensor, "H W 3"]]] = field(default_factory=dict)
    """Of the first `SHEET_ROWS`, by photograph: its file's name, the render and the crop, on the CPU."""


@torch.no_grad()
def plan_held_out(run: Run, number: int, target: Float[Tensor, "3"]) -> list[tuple[int, View]]:
    """The native crops of round ``number`` of the held-out photographs that see ``target``: photograph and camera."""
    data, zoom = run.photographs, run.settings.schedule.zoom**number
    views = [view for view, _, _ in data.eval_photographs()]
    return plan_crops(views, data.eval_originals(), target, zoom, run.model.render_view)


def cut_held_out(run: Run, number: int, crops: Sequence[tuple[int, View]]) -> Iterator[HeldOut]:
    """Cut ``crops`` one by one, in order, as they are asked for; one that hides everything is left out.

    An original that cannot be decoded or shows another picture is named.
    """
    data, originals = run.photographs, run.photographs.eval_originals()
    zoom = f"{run.settings.schedule.zoom**number:g}x"
    for index, crop in track(crops, f"held-out photographs, {zoom}"):
        original, (view, photograph, _) = originals[index], data.eval_photograph(index)
        assert original is not None, "a crop is planned only where there is an original"
        try:
            pixels, mask = read_original(data, original, crop, view, photograph)
        except DataError as error:
            name = escape(f"{original.path.name} is not scored at {zoom}: {error}")
            CONSOLE.print(f"[yellow]Held-out photograph {name}", soft_wrap=True)
            continue
        image = torch.from_numpy(cut(original, pixels[..., :3], crop)).to(run.device).float() / 255
        masks = [(pixels[..., 3] == 255).astype(np.uint8)] if pixels.shape[-1] == 4 else []
        masks += [] if mask is None else [mask]
        shown = [torch.from_numpy(cut_mask(original, hides, crop)) for hides in masks]
        counted = torch.stack(shown).all(0).to(run.device) if shown else None
        if counted is None or bool(counted.any()):
            yield HeldOut(number, crop, image, counted, original.path.name, index)


def held_out_crops(run: Run, number: int, target: Float[Tensor, "3"]) -> list[HeldOut]:
    """All native crops of round ``number`` of the held-out photographs that see ``target``, in memory together."""
    return list(cut_held_out(run, number, plan_held_out(run, number, target)))


@torch.no_grad()
def mean_psnr(run: Run, crops: Sequence[HeldOut]) -> float | None:
    """Mean PSNR in dB over held-out photographs, from their poses as given; None of none."""
    return mean_or_none(psnr(crop.render(run), crop.image, crop.counted) for crop in crops)


@torch.no_grad()
def look(run: Run, number: int, crops: Sequence[tuple[int, View]], registered: bool = False) -> Look:
    """How the model shows ``crops`` of round ``number`` now. One is in memory at a time, whatever their number."""
    found = Look()
    as_given, fitted = [], []
    for crop in cut_held_out(run, number, crops):
        shown = crop.render(run)
        as_given.append(psnr(shown, crop.image, crop.counted))
        if registered:
            fitted.append(psnr(crop.render(run, registered=True), crop.image, crop.counted))
        found.crops.append((crop.photograph, crop.view))
        if len(found.pictures) < SHEET_ROWS:
            found.pictures[crop.photograph] = crop.name, to_bytes(shown), to_bytes(crop.image)
    return replace(found, psnr=mean_or_none(as_given), registered=mean_or_none(fitted))


def save_sheet(path: Path, title: str, before: Look, after: Look) -> None:
    """A picture with a row for each of the first crops: before the round, after it, and the photograph."""
    rows = [
        ((shown / 255, after.pictures[index][1] / 255, image / 255), name, INK)
        for index, (name, shown, image) in before.pictures.items()
        if index in after.pictures
    ]
    widest = max([IMAGE_WIDTH, *(pictures[0].shape[1] for pictures, _, _ in rows)])
    save_labelled(path, title, COLUMNS, rows, width=widest, caption=HEADING)
