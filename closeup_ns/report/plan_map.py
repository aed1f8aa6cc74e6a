"""A round's plan as a small map: bearing as seen from above, distance to the target on a logarithmic scale.

On a linear map the frontier of the third round, 27 times closer than the photographs, would be one dot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from closeup_ns.planning.plan import KnownView, RoundPlan
from closeup_ns.views.view import View

SIZE = 320
CENTRE = SIZE / 2
RADIUS = 146.0
"""Of the outermost ring, in units of the drawing."""
CORE = 18.0
"""Ring of the nearest camera: nothing but the target is closer to the centre."""
TICK = 11.0
LABELS = {"known": "known", "anchor": "anchors", "update": "to-be-updated", "frontier": "frontier"}


@dataclass(frozen=True)
class Camera:
    """A camera on the map."""

    kind: str
    """Key of `LABELS`."""
    name: str
    distance: float
    """From the target, world units."""
    bearing: float
    """Radians from x towards y, as seen from the target; one right above it has none and goes to x."""
    ahead: tuple[float, float]
    """Where it looks: x and y of its unit viewing direction, world frame."""


@dataclass(frozen=True)
class Mark:
    """A camera as it is drawn, with a line along its view; units of the drawing, y down."""

    kind: str
    title: str
    x: float
    y: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Ring:
    """Places of one distance to the target, and where the ring's label is."""

    zoom: int
    """How many times closer than the photographs."""
    radius: float
    x: float
    y: float


@dataclass(frozen=True)
class PlanMap:
    """What the page draws of a plan."""

    rings: list[Ring]
    marks: list[Mark]
    counts: dict[str, int]
    """Cameras by kind."""
    labels: dict[str, str] = field(default_factory=lambda: LABELS)
    size: float = SIZE
    centre: float = CENTRE

    @property
    def counts_text(self) -> str:
        return ", ".join(f"{self.counts[kind]} {name}" for kind, name in LABELS.items())


def cameras_of(plan: RoundPlan, known: Sequence[KnownView]) -> list[Camera]:
    """The cameras of a plan and of what was known; an anchor is shown once, as an anchor."""
    anchors = {item.name for item in plan.anchors}
    cameras = [_camera("known", item.name, item.view, plan.target) for item in known if item.name not in anchors]
    cameras += [_camera("anchor", item.name, item.view, plan.target) for item in plan.anchors]
    cameras += [_camera("update", f"update {i}", view, plan.target) for i, view in enumerate(plan.updates)]
    cameras += [_camera("frontier", f"frontier {i}", view, plan.target) for i, view in enumerate(plan.frontier)]
    return cameras


def plan_map(plan: RoundPlan, known: Sequence[KnownView]) -> PlanMap:
    """The map of one plan and of the views that were known then, in units of the drawing."""
    cameras, base = cameras_of(plan, known), plan.radius * plan.zoom_total
    distances = [camera.distance for camera in cameras if camera.distance > 0] or [base]
    scale, bearing = _Scale(min(*distances, plan.radius), max(*distances, base)), _free_bearing(cameras)
    return PlanMap(
        [_ring(scale, base, zoom, bearing) for zoom in _zooms(scale, base)],
        [_mark(camera, scale) for camera in cameras],
        {kind: sum(camera.kind == kind for camera in cameras) for kind in LABELS},
    )


@dataclass(frozen=True)
class _Scale:
    nearest: float
    farthest: float

    def radius(self, distance: float) -> float:
        span = math.log(max(self.farthest / self.nearest, 1.0 + 1e-9))
        share = math.log(max(distance, self.nearest) / self.nearest) / span
        return CORE + (RADIUS - CORE) * min(share, 1.0)


def _zooms(scale: _Scale, base: float) -> list[int]:
    return [3**power for power in range(6) if scale.nearest <= base / 3**power * (1 + 1e-6)]


def _free_bearing(cameras: Sequence[Camera]) -> float:
    """Where the rings' labels go, radians: away from the cameras of a forward-facing capture."""
    x, y = (sum(part(camera.bearing) for camera in cameras) for part in (math.cos, math.sin))
    return math.atan2(-y, -x)


def _polar(radius: float, bearing: float) -> tuple[float, float]:
    return CENTRE + radius * math.cos(bearing), CENTRE - radius * math.sin(bearing)


def _ring(scale: _Scale, base: float, zoom: int, bearing: float) -> Ring:
    radius = scale.radius(base / zoom)
    x, y = _polar(radius, bearing)
    return Ring(zoom, round(radius, 1), round(x, 1), round(y, 1))


def _mark(camera: Camera, scale: _Scale) -> Mark:
    x, y = _polar(scale.radius(camera.distance), camera.bearing)
    title = f"{LABELS[camera.kind]}: {camera.name}, {camera.distance:.3g} from the target"
    x2, y2 = x + TICK * camera.ahead[0], y - TICK * camera.ahead[1]
    return Mark(camera.kind, title, round(x, 1), round(y, 1), round(x2, 1), round(y2, 1))


def _camera(kind: str, name: str, view: View, target: Sequence[float]) -> Camera:
    x, y, z = (view.position - view.position.new_tensor(target)).tolist()
    return Camera(kind, name, math.hypot(x, y, z), math.atan2(y, x), tuple(view.forward[:2].tolist()))
