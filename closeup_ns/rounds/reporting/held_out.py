"""Held-out photographs at full size: the ground truth of close-ups that every capture with originals has (issue 11.7).

Nothing that trains or decides may look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.errors import DataError
from closeup_ns.progress import track
from closeup_ns.rounds.native import cut, cut_mask, disagreement, native_rounds, plan_crops
from closeup_ns.rounds.reporting.contact_sheet import CELL, HEADING, INK, save_labelled
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import mean_of_numbers, psnr
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


@torch.no_grad()
def held_out_crops(run: Run, number: int, target: Float[Tensor, "3"]) -> list[HeldOut]:
    """The native crops of round ``number`` of the held-out photographs that see ``target``."""
    data, zoom = run.photographs, run.settings.schedule.zoom**number
    photographs, originals, found = data.eval_photographs(), data.eval_originals(), []
    views = [view for view, _, _ in photographs]
    crops = plan_crops(views, originals, target, zoom, run.model.render_view)
    for index, crop in track(crops, f"cutting held-out originals, {zoom:g}x"):
        original, (view, photograph, _) = originals[index], photographs[index]
        assert original is not None
        try:
            pixels, mask = original.read()
        except DataError:
            continue  # named when the photograph's own close-ups are wanted
        if disagreement(original, pixels, crop, view, photograph) is None:
            image = torch.from_numpy(cut(original, pixels, crop)).to(run.device).float() / 255
            counted = None if mask is None else torch.from_numpy(cut_mask(original, mask, crop)).to(run.device)
            if image.shape[-1] == 4:
                opaque = image[..., 3] > 0.999
                counted = opaque if counted is None else counted & opaque
            found.append(HeldOut(number, crop, image[..., :3].contiguous(), counted, original.path.name))
    return found


@torch.no_grad()
def mean_psnr(run: Run, crops: Sequence[HeldOut], registered: bool = False) -> float | None:
    """Mean PSNR in dB over held-out photographs; None of none."""
    scores = [psnr(crop.render(run, registered), crop.image, crop.counted) for crop in crops]
    return mean_of_numbers(scores) if scores else None


def save_sheet(
    path: Path, title: str, before: Sequence[Tensor], after: Sequence[Tensor], crops: Sequence[HeldOut]
) -> None:
    """A picture with a row for each of the first crops: before the round, after it, and the photograph."""
    pictures = zip(before[:SHEET_ROWS], after[:SHEET_ROWS], crops[:SHEET_ROWS], strict=True)
    rows = [((one, other, crop.image), crop.name, INK) for one, other, crop in pictures]
    widest = max(crop.view.width for crop in crops[:SHEET_ROWS])
    save_labelled(path, title, COLUMNS, rows, cell=max(widest, CELL), caption=HEADING)
