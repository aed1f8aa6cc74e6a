"""Options of a path, and the planned path."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.views.view import View

Kind = Literal["dive", "orbit", "pull-back"]
Ease = Literal["smooth", "soft", "linear"]

_DEFAULT_ZOOM = {"dive": 27.0, "orbit": 3.0, "pull-back": 27.0}


@dataclass(frozen=True)
class PathOptions:
    """How the camera moves. Each kind of path reads what concerns it."""

    zoom: float | None = None
    """How many times larger the target appears where the camera is closest. None: 27, on an orbit 3."""
    distance: float | None = None
    """The closest distance to the target in world units, instead of ``zoom``."""
    frames: int = 240
    """Number of views, first and last included."""
    ease: Ease = "smooth"
    """``smooth`` starts and ends at rest (quintic), ``soft`` less so (cubic), ``linear`` runs at one speed."""
    narrow_lens: bool = False
    """Share the magnification, in equal factors, between coming closer and a narrowing lens: half the approach."""
    degrees: float = 60.0
    """Orbit: how far around the target, half to either side of the start view; negative goes the other way round."""
    within_coverage: bool = False
    """Orbit: cut where no photograph looks from nearby, instead of only saying so."""
    beyond: float = 1.0
    """Pull-back: where it ends, as a multiple of the start view's distance."""
    clearance: float = 0.1
    """Room that the camera keeps from any surface, as a fraction of its distance to the target."""
    check_size: int = 96
    """Long side in pixels of the depth images that look for obstacles."""
    check_steps: int = 24
    """Number of places along the path from which to look for obstacles."""

    def __post_init__(self) -> None:
        if self.zoom is not None and not (self.zoom > 1.0 and math.isfinite(self.zoom)):
            raise PlanningError(f"zoom must be more than 1, not {self.zoom:g}")
        if self.distance is not None and not (self.distance > 0.0 and math.isfinite(self.distance)):
            raise PlanningError(f"the distance to the target must be more than 0, not {self.distance:g}")
        if self.frames < 2:
            raise PlanningError(f"a path needs two frames at least, not {self.frames}: ask for more frames or seconds")
        if not 0.0 < abs(self.degrees) <= 360.0:
            raise PlanningError(f"an orbit goes around by up to 360 degrees and not by 0; {self.degrees:g} is no orbit")
        if not (self.beyond >= 1.0 and math.isfinite(self.beyond)):
            raise PlanningError(
                f"a pull-back ends at its start view or beyond, so beyond is 1 at least: {self.beyond:g}"
            )

    def zoom_of(self, kind: Kind) -> float:
        """The zoom asked for, or the kind's own."""
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
