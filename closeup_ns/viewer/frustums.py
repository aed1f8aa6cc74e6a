"""Which cameras the viewer shows, in which colour: read from the round store, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from closeup_ns.errors import RoundStorageError
from closeup_ns.planning.plan import RoundPlan
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.views.view import View

CameraKind = Literal["known", "anchor", "update", "frontier"]
COLORS: dict[CameraKind, tuple[int, int, int]] = {
    "known": (150, 150, 150),
    "anchor": (255, 140, 0),
    "update": (250, 215, 50),
    "frontier": (45, 110, 255),
}
"""The paper's (Fig. 2)."""
_ANCHOR_LENGTH = 1.3
"""Anchors are drawn longer: most are photographs too, and one would hide the other."""
LABELS: dict[CameraKind, str] = {
    "known": "known",
    "anchor": "anchor",
    "update": "to be updated",
    "frontier": "frontier",
}


@dataclass(frozen=True, eq=False)
class CameraMark:
    """A camera to show."""

    path: str
    """Name in viser's scene tree."""
    kind: CameraKind
    round_index: int
    """0: belongs to the capture and not to a round."""
    view: View
    title: str
    """What the panel calls it."""
    distance: float
    """To the target, world units."""
    picture: Path | None = None
    """The refined image; None where there is none."""
    note: str = ""
    """What the gate said of it, or why its file cannot be read."""


def known_marks(names: Sequence[str], views: Sequence[View], distance: float) -> list[CameraMark]:
    """The photographs' cameras, drawn as if ``distance`` away from the target."""
    return [
        CameraMark(f"/closeup/known/{index:05d}", "known", 0, view, f"photograph {name}", distance)
        for index, (name, view) in enumerate(zip(names, views))
    ]


def round_marks(store: RoundStore, number: int) -> list[CameraMark]:
    """Anchors, to-be-updated and frontier views of a round; those refined so far with their image.

    A damaged file of one view costs that view's picture. RoundStorageError where the plan is damaged.
    """
    saved = store.load_plan(number)
    if saved is None:
        return []
    refined = set(store.views(number))
    marks = []
    for index, plan in enumerate(saved.plans):
        for anchor in plan.anchors:
            name = f"t{index}_anchor_{len(marks):02d}"
            marks.append(_mark(number, "anchor", name, anchor.view, plan, f"anchor {anchor.name}"))
        for kind in ("update", "frontier"):
            for position, (name, view) in enumerate(plan.named(index, kind).items()):
                title = f"{LABELS[kind]} {position}, {plan.zoom_total:.3g}x"
                mark = _mark(number, kind, name, view, plan, title)
                marks.append(_refined(mark, store, name) if name in refined else replace(mark, note="not refined"))
    return marks


def state_of(store: RoundStore) -> tuple[tuple[int, int, bool], ...]:
    """What is there of each round: (number, refined views, over). Differs when there is something new to draw."""
    done = set(store.rounds_done())
    return tuple((number, len(store.views(number)), number in done) for number in store.rounds())


def frustum_scale(mark: CameraMark, share: float) -> float:
    """What viser calls a frustum's scale, in world units, for one that is ``share`` of its distance to the target long.

    viser's scale is the cube root of the frustum's volume: with it alone, long lenses would make long frustums.
    """
    half = 0.5 * mark.view.height / float(mark.view.K[1, 1])
    volume = half * half * mark.view.width / mark.view.height / 3.0
    longer = _ANCHOR_LENGTH if mark.kind == "anchor" else 1.0
    return longer * share * mark.distance * volume ** (1.0 / 3.0)


def thumbnail(path: Path, long_side: int) -> np.ndarray:
    """A picture [H, W, 3] uint8 with at most ``long_side`` pixels on its longer side.

    RoundStorageError where it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
            small.thumbnail((long_side, long_side))
            return np.asarray(small)
    except OSError as error:
        raise RoundStorageError(f"{path} cannot be read ({error}); resume the run to refine it again") from error


def _refined(mark: CameraMark, store: RoundStore, name: str) -> CameraMark:
    number = mark.round_index
    try:
        decision = store.header(number, name).decision
        note = f"{decision.verdict.replace('_', ' ')}: {decision.reason}"
        return replace(mark, picture=store.picture(number, name), note=note)
    except RoundStorageError as problem:
        return replace(mark, note=str(problem))


def _mark(number: int, kind: CameraKind, name: str, view: View, plan: RoundPlan, title: str) -> CameraMark:
    away = float((view.position - view.position.new_tensor(plan.target)).norm())
    path = f"/closeup/round_{number}/{kind}/{name}"
    return CameraMark(path, kind, number, view, f"round {number}, {title}", away)
