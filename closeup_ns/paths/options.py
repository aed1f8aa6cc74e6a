"""Options of a path, and the planned path."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import tyro
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.views.view import View

Kind = Literal["dive", "orbit", "pull-back"]

_DEFAULT_ZOOM = {"dive": 27.0, "orbit": 3.0, "pull-back": 27.0}


@dataclass(frozen=True)
class PathOptions:
    """How the camera moves. Each kind of path reads what concerns it."""

    zoom: float | None = None
    """How many times larger the target is at the closest than the training cameras usually see it: 27; an orbit 3."""
    degrees: float = 60.0
    """Orbit: how far around the target, centred on the start view; negative goes the other way round."""
    within_coverage: bool = False
    """Orbit: cut it where no photograph looks from nearby. Otherwise that is only said."""
    beyond: float = 1.0
    """Pull-back: where it ends, as a multiple of the start view's distance."""
    seconds: float = 8.0
    """Length of the video."""
    fps: float = 30.0
    """Frames per second."""
    frames: int | None = None
    """Number of frames, first and last included, instead of the seconds."""
    clearance: tyro.conf.Suppress[float] = 0.1
    """Room that the camera keeps from any surface, as a fraction of its distance to the target."""
    check_size: tyro.conf.Suppress[int] = 96
    """Long side in pixels of the depth images that look for obstacles."""
    check_steps: tyro.conf.Suppress[int] = 24
    """Number of places along the path from which to look for obstacles."""

    def __post_init__(self) -> None:
        if self.zoom is not None and not (self.zoom > 1.0 and math.isfinite(self.zoom)):
            raise PlanningError(f"zoom must be more than 1, not {self.zoom:g}")
        count = self.seconds * self.fps if self.frames is None else self.frames
        if not (math.isfinite(count) and math.isfinite(self.fps) and self.fps > 0 and 2 <= round(count) <= 100_000):
            length = f"--seconds {self.seconds:g}" if self.frames is None else f"--frames {self.frames}"
            raise PlanningError(f"{length} at --fps {self.fps:g} makes no video of 2 to 100000 frames")
        if not 0.0 < abs(self.degrees) <= 360.0:
            raise PlanningError(f"an orbit goes around by up to 360 degrees and not by 0; {self.degrees:g} is no orbit")
        if not (self.beyond >= 1.0 and math.isfinite(self.beyond)):
            raise PlanningError(
                f"a pull-back ends at its start view or beyond, so beyond is 1 at least: {self.beyond:g}"
            )

    @property
    def frame_count(self) -> int:
        """Number of views."""
        return round(self.seconds * self.fps) if self.frames is None else self.frames

    def zoom_of(self, kind: Kind) -> float:
        """How many times closer than the photographs it comes: ``zoom``, or where that is None the kind's own."""
        return _DEFAULT_ZOOM[kind] if self.zoom is None else self.zoom


@dataclass(frozen=True, eq=False)
class PlannedPath:
    """A path that was checked."""

    kind: Kind
    views: list[View]
    """One view per frame, float64."""
    target: Float[Tensor, "3"]
    """World coordinates."""
    zoom: float
    """The largest magnification that is reached; less than asked for where something stands in the way."""
    bend: float = 0.0
    """Dive and pull-back: turn of the approach about the target, in degrees; 0 is the straight line."""
    sweep: float = 0.0
    """Orbit: how far around it goes, in degrees."""
    warnings: list[str] = field(default_factory=list)
    """Warnings to show to the user."""
