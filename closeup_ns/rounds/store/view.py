"""One refined view as it lies on disk: exact numbers for training, ordinary PNGs for people and other methods.

A resumed run must train on the same bits as one that was never stopped, so everything that the loss reads is rounded to
what the files hold *before* its first use: ``quantised`` is applied on saving, and a file gives back exactly that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.reading import build
from closeup_ns.refine.judging.gate import GateDecision
from closeup_ns.views.reliability import ReliablePixels
from closeup_ns.views.view import View

_DTYPES = {
    **dict.fromkeys(("image", "render", "weight", "color", "blended", "support"), np.uint16),
    **dict.fromkeys(("real", "dense", "sparse"), np.bool_),
    "footprint": np.float32,
}
"""What ``.npz`` holds."""
LEVELS = 65535
"""Colours and weights are kept in 16 bits: 256 times finer than the photographs themselves."""


@dataclass(frozen=True)
class PassRecord:
    """How a view was refined: by what, together with what, and at what cost."""

    refiner: str
    """Name of the refiner, its enhancer included."""
    generates: bool
    """Whether it invents detail. What it made stays generated, whatever a later run of this folder is configured to."""
    pass_number: int
    """Pass of the round, from 1."""
    frames: int
    """Pictures in that pass, references included."""
    references: tuple[str, ...]
    """Names of the finished pictures that the refiner was shown."""
    peak_memory_mb: float
    """Most memory in use during the pass: of the GPU, or without one of the process since its start."""
    memory_of: Literal["GPU", "process"]
    """Which of the two."""


@dataclass(frozen=True, eq=False)
class StoredView:
    """What one to-be-updated or frontier view contributes to a round."""

    view: View
    """Where it is seen from (OpenCV c2w, world frame of the model)."""
    image: Float[Tensor, "H W 3"]
    """What the model is trained on: refined, and past the gate."""
    render: Float[Tensor, "H W 3"]
    """What the model showed before the round."""
    reliable: ReliablePixels
    """What real photographs say about the view; ``sparse`` and ``color`` enter the loss."""
    real: Bool[Tensor, "H W"]
    """Provenance: true where the colour in ``image`` is a real photograph's."""
    weight: Float[Tensor, "H W"]
    """Trust for the loss, in [0, 1]."""
    decision: GateDecision
    """The gate's verdict."""
    seconds: float
    """Rendering, refining and judging it took this long; of a joint pass, its share."""
    record: PassRecord
    """How it was refined."""
    notes: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    """The refiner's remarks, for the report."""


def in_figures(stored: StoredView) -> dict[str, Any]:
    """A view's line in report.json: the gate's decision with its evidence, how it was refined, and at what cost."""
    return {
        **stored.decision.to_dict(),
        "seconds": round(stored.seconds, 3),
        **dataclasses.asdict(stored.record),
        "notes": dict(stored.notes),
    }


def quantised(stored: StoredView) -> StoredView:
    """The same view rounded to what the file holds, on the CPU in float32. Applying it twice changes nothing more."""
    return _from_arrays(_to_arrays(stored), stored)


def write_exact(path: Path, stored: StoredView) -> None:
    """Writes the tensors losslessly (up to 16 bits per value) as ``.npz`` at exactly ``path``."""
    with open(path, "wb") as file:
        np.savez_compressed(file, **_to_arrays(stored))


def read_exact(path: Path, header: StoredView) -> StoredView:
    """Reads what ``write_exact`` wrote; ``header`` is the view without its pixels (``from_header``).

    Raises:
        Exception: of any kind; the file is damaged or not one of ours (``allow_pickle`` is off).
    """
    size = (header.view.height, header.view.width)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in _DTYPES}
    for name, array in arrays.items():
        wanted = {"image": (*size, 3), "render": (*size, 3), "color": (3, *size), "blended": (3, *size)}.get(name, size)
        if array.shape != wanted or array.dtype != _DTYPES[name]:
            raise ValueError(f"its {name} is {array.shape} {array.dtype}, and not {wanted} {np.dtype(_DTYPES[name])}")
    if not np.isfinite(arrays["footprint"]).all():
        raise ValueError("its footprint is not finite")
    return _from_arrays(arrays, header)


def from_header(header: Mapping[str, Any]) -> StoredView:
    """A stored view without its pixels, from what `view_header` wrote. CloseupError where it is not that."""
    blank, record = torch.zeros(0), header["pass"]
    return StoredView(
        view=View.from_dict(header["view"]),
        image=blank,
        render=blank,
        reliable=ReliablePixels(blank.bool(), blank.bool(), blank, blank, blank.int(), blank),
        real=blank.bool(),
        weight=blank,
        decision=GateDecision.from_dict(header["decision"]),
        seconds=float(header["seconds"]),
        notes=dict(header["notes"]),
        record=build(PassRecord, {**record, "references": tuple(record["references"])}),
    )


def view_header(stored: StoredView) -> dict[str, Any]:
    """The JSON part of a stored view."""
    return {
        "view": stored.view.to_dict(),
        "decision": stored.decision.to_dict(),
        "seconds": stored.seconds,
        "notes": dict(stored.notes),
        "pass": dataclasses.asdict(stored.record),
    }


def _levels(values: Tensor) -> np.ndarray:
    # Float64, so that rounding is the same on every device and exact for values that came from a file.
    scaled = torch.nan_to_num(values.detach().double()).clamp(0, 1) * LEVELS
    return scaled.round().cpu().numpy().astype(np.uint16)


def _values(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels.astype(np.float64) / LEVELS).float()


def _to_arrays(stored: StoredView) -> dict[str, np.ndarray]:
    known = stored.reliable
    return {
        "image": _levels(stored.image),
        "render": _levels(stored.render),
        "weight": _levels(stored.weight),
        "real": stored.real.cpu().numpy(),
        "dense": known.dense.cpu().numpy(),
        "sparse": known.sparse.cpu().numpy(),
        "color": _levels(known.color),
        "blended": _levels(known.blended),
        "footprint": known.footprint.detach().float().cpu().numpy(),
        "support": known.support.detach().clamp(0, LEVELS).cpu().numpy().astype(np.uint16),
    }


def _from_arrays(arrays: Mapping[str, np.ndarray], rest: StoredView) -> StoredView:
    """Tensors from ``arrays``, everything else from ``rest``."""
    reliable = ReliablePixels(
        dense=torch.from_numpy(arrays["dense"]),
        sparse=torch.from_numpy(arrays["sparse"]),
        color=_values(arrays["color"]),
        blended=_values(arrays["blended"]),
        support=torch.from_numpy(arrays["support"].astype(np.int32)),
        footprint=torch.from_numpy(arrays["footprint"]),
    )
    return dataclasses.replace(
        rest,
        view=rest.view.to("cpu"),
        image=_values(arrays["image"]),
        render=_values(arrays["render"]),
        reliable=reliable,
        real=torch.from_numpy(arrays["real"]),
        weight=_values(arrays["weight"]),
    )
