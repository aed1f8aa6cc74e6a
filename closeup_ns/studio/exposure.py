"""Whether photographs get an exposure of their own: decided before the first step, and said in one line."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.model.drift import measure_drift
from closeup_ns.model.exposure import STOP, exposed
from closeup_ns.model.model import CloseupModel
from closeup_ns.progress import track
from closeup_ns.studio.datamanager import CloseupDatamanager
from closeup_ns.views.psnr import mean_of_numbers, psnr

DRIFT = 0.045
"""Deviation of the photographs' log gains above which they differ in exposure: 0.16 stops. Flower has 0.031 and loses
0.1 dB by gains of its photographs, fox has 0.065 and gains 0.5 dB (docs/quality.md)."""
SAME = 0.01
"""Stops; EXIF that differs by less tells nothing of how much gain a stop is."""


def start_exposure(model: CloseupModel, data: CloseupDatamanager) -> None:
    """Switch the photographs' exposures on where ``model.exposure`` or, for "auto", what they show asks for it."""
    wanted, count = model.config.exposure, len(data.train_dataset)
    if wanted == "off" or (wanted == "auto" and model.config.use_bilateral_grid) or count < 2:
        return
    metadata = data.train_dataparser_outputs.metadata
    points: Tensor | None = metadata.get("points3D_xyz")
    recorded = recorded_gains(metadata.get("exposure_stops", []), count).to(model.device)
    drift = measure_drift(
        data.train_views(),
        (data.photograph(index) for index in range(count)),
        (data.shown(index) for index in range(count)),
        (torch.zeros(0, 3) if points is None else points).to(model.device),
        recorded,
        torch.Generator().manual_seed(0),
    )
    on = wanted == "on" or drift.spread > DRIFT
    if on:
        model.exposure.start(drift.log_gain)
    source = "sparse points" if drift.compared else "EXIF" if bool(recorded.any()) else "nothing tells"
    CONSOLE.print(
        f"Exposure: the photographs differ by {drift.spread / STOP:.2f} stops ({source}): "
        + ("each has a gain and a white balance of its own." if on else "they are taken to have the same."),
        soft_wrap=True,
    )


def recorded_gains(stops: Sequence[float | None], count: int) -> Float[Tensor, "N 3"]:
    """Log gains of mean 0 that the photographs' EXIF tells; zero where it does not tell one of each, which is said."""
    told = [value for value in stops if value is not None]
    if len(told) < count:
        if told:
            CONSOLE.print(
                f"EXIF says soundly how {len(told)} of {count} photographs were exposed: it is not used.",
                soft_wrap=True,
            )
        return torch.zeros(count, 3)
    mean = math.fsum(told) / count
    return torch.tensor([[(value - mean) * STOP] * 3 for value in told])


@torch.no_grad()
def predicted_psnr(model: CloseupModel, data: CloseupDatamanager) -> float | str:
    """Mean PSNR in dB of the evaluation split, each render at the exposure that its photograph's EXIF predicts.

    The training photographs tell how much gain a stop is. Where it cannot be computed: why.
    """
    train, held_out = (
        found.metadata.get("exposure_stops", [None]) for found in (data.train_dataset, data.eval_dataset)
    )
    if None in train or None in held_out:
        return "EXIF does not say soundly how each photograph was exposed"
    if not model.exposure.on:
        return "the photographs have no exposures of their own in this run"
    stops = torch.tensor(train, device=model.device)
    stops, mean = stops - stops.mean(), float(stops.mean())
    if float(stops.abs().max()) < SAME:
        return "EXIF says that all photographs were exposed alike"
    gains = model.exposure.log_gain.mean(1)
    slope = (stops @ (gains - gains.mean())) / (stops @ stops)
    photographs = list(zip(data.eval_photographs(), held_out, strict=True))
    return mean_of_numbers(
        psnr(exposed(model.render_view(view).color, (slope * (stop - mean)).expand(3)), image, mask)
        for (view, image, mask), stop in track(photographs, "evaluation photographs, at EXIF's exposures")
    )
