"""What each JSON file of the rounds holds, and what to do where it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from closeup_ns.errors import RoundStorageError
from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.planning.target import Target
from closeup_ns.reading import build, read_json, reading
from closeup_ns.rounds.store.view import from_header
from closeup_ns.views.opengl import flipped
from closeup_ns.views.view import View

BEGIN_ANEW = "Restore it from a copy of the run, or delete rounds/ and resume from a checkpoint before round 1"
REPEAT_ROUND = "Restore it from a copy of the run, or delete the round's folder and resume from a checkpoint before it"


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    shape: Any
    """Types of its content, for `read_json`."""
    remedy: str
    """What to do where it is damaged."""
    make: Callable[[Any], Any] | None = None
    """What it is read as; raises where types alone do not show that the content is wrong. None: as it is."""


_Steps = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True)
class Schedule:
    """What the viewer's button for the next round may change."""

    base_steps: _Steps
    rounds: _Steps
    round_steps: _Steps


@dataclass(frozen=True)
class RoundPass:
    """One call of a refiner, by names. Anchors, neighbours and targets together are at most the refiner's frames."""

    targets: tuple[str, ...]
    """Views of the round to refine."""
    neighbours: tuple[str, ...] = ()
    """Views of the round that earlier passes refined: further references."""
    anchors: tuple[str, ...] = ()
    """Known views, as the plan calls them."""

    @property
    def frames(self) -> int:
        """Pictures in the pass."""
        return len(self.targets) + len(self.neighbours) + len(self.anchors)


@dataclass(frozen=True)
class StoredPasses:
    """A round's passes, and how many frames they were planned for."""

    frames: int
    passes: list[RoundPass]


@dataclass(frozen=True, eq=False)
class StoredPlan:
    """A round's plans, one for each target, and the views that were known then."""

    plans: list[RoundPlan]
    known: list[KnownView] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {name: [item.to_dict() for item in items] for name, items in vars(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StoredPlan:
        """The inverse of ``to_dict``. CloseupError where it is not that."""
        known = [KnownView.from_dict(view) for view in content.get("known", [])]
        return cls([RoundPlan.from_dict(plan) for plan in content["plans"]], known)


@dataclass
class RoundVerdict:
    """The outcome of a trial, as the report shows it."""

    accepted: bool
    reason: str
    photographs_before: float | None = None
    """PSNR in dB of the held-out photographs before the trial."""
    photographs_control: float | None = None
    """After the control arm: real photographs only."""
    photographs_round: float | None = None
    """After the round's arm."""
    native_control: float | None = None
    """PSNR in dB of the held-out photographs' native crops at the round's scale, after the control arm."""
    native_round: float | None = None
    reliable_control: float | None = None
    """PSNR in dB of the reliable pixels set aside, after the control arm."""
    reliable_round: float | None = None
    known_share: float = 0.0
    """How much the round has to say: mean trust of its pixels."""
    trial_steps: int = 0
    views: int = 0
    """How many refined views were judged."""


def view_of_frame(frame: Mapping[str, Any]) -> View:
    """The camera of a nerfstudio frame with intrinsics of its own. CloseupError where it is none."""
    K = [[frame["fl_x"], 0, frame["cx"]], [0, frame["fl_y"], frame["cy"]], [0, 0, 1]]
    c2w = flipped(torch.tensor(frame["transform_matrix"])).tolist()
    return View.from_dict({"K": K, "c2w": c2w, "width": frame["w"], "height": frame["h"]})


def _native(content: dict[str, Any]) -> dict[str, Any]:
    for frame in content["frames"]:
        view_of_frame(frame)
    return content


def _targets(content: dict[str, Any]) -> list[Target]:
    if not content["targets"]:
        raise ValueError("it names no target")
    return [Target.from_dict(target) for target in content["targets"]]


RUN = Kind(dict[str, Any], "Restore it from a copy of the run; it says which capture and target the rounds belong to")
TARGETS = Kind(dict[str, list[dict[str, Any]]], BEGIN_ANEW, _targets)
SCHEDULE = Kind(Schedule, "Delete it to go by the command line's schedule")
PLAN = Kind(dict[str, list[dict[str, Any]]], REPEAT_ROUND, StoredPlan.from_dict)
PASSES = Kind(StoredPasses, "Delete it to plan the passes again")
VERDICT = Kind(dict[str, Any], REPEAT_ROUND, partial(build, RoundVerdict))
REPORT = Kind(dict[str, Any], "Delete it: it is written when the round ends")
NATIVE = Kind(dict[str, Any], "Delete its folder to cut the native views from the originals again", _native)
VIEW = Kind(dict[str, Any], "Delete it to refine the view again", from_header)


def load(path: Path, kind: Kind) -> Any:
    """What a file holds, checked, or None where it is not there. RoundStorageError where it is damaged."""
    return read(path, kind) if path.exists() else None


def read(path: Path, kind: Kind) -> Any:
    """What a file holds, checked. RoundStorageError where it is missing or damaged."""
    content = read_json(path, kind.shape, kind.remedy, RoundStorageError)
    with reading(path, kind.remedy, RoundStorageError):
        return content if kind.make is None else kind.make(content)
