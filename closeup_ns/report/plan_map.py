"""A round's plan as a small map: bearing as seen from above, distance to the target on a logarithmic scale.

On a linear map the frontier of the third round, 27 times closer than the photographs, would be one dot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from closeup_ns.report.markup import Markup, tag

SIZE = 320
CENTRE = SIZE / 2
SMALLEST, MARGIN = 200.0, 16.0
"""Side of the smallest part of the drawing that is shown, and what is left around the cameras."""
RADIUS = 146.0
"""Of the outermost ring, in units of the drawing."""
CORE = 18.0
"""Ring of the nearest camera: nothing but the target is closer to the centre."""
TICK = 11.0
LABEL_ROOM = 22.0
"""Between the middle of a ring's label and that of a camera."""
LABELS = {"known": "known", "anchor": "anchors", "update": "to-be-updated", "frontier": "frontier"}


@dataclass(frozen=True)
class Camera:
    """A camera on the map."""

    kind: str
    """Key of `LABELS`."""
    name: str
    offset: tuple[float, float, float]
    """From the target, world axes (z up)."""
    forward: tuple[float, float, float]

    @property
    def distance(self) -> float:
        return math.hypot(*self.offset)


def cameras_of(plan: dict[str, Any], known: Sequence[dict[str, Any]]) -> list[Camera]:
    """The cameras of a plan (`RoundPlan.to_dict`) and of what was known; an anchor is shown once, as an anchor."""
    target = [float(value) for value in plan["target"]]
    anchors = {item["name"] for item in plan["anchors"]}
    cameras = [_camera("known", item["name"], item["view"], target) for item in known if item["name"] not in anchors]
    cameras += [_camera("anchor", item["name"], item["view"], target) for item in plan["anchors"]]
    cameras += [_camera("update", f"update {i}", view, target) for i, view in enumerate(plan["updates"])]
    cameras += [_camera("frontier", f"frontier {i}", view, target) for i, view in enumerate(plan["frontier"])]
    return [camera for camera in cameras if math.isfinite(camera.distance)]


def plan_map(plan: dict[str, Any], known: Sequence[dict[str, Any]], label: str) -> Markup:
    """The map as SVG. Raises KeyError, TypeError or ValueError where the plan is not one of ours."""
    cameras = cameras_of(plan, known)
    base = float(plan["radius"]) * float(plan["zoom_total"])
    distances = [camera.distance for camera in cameras if camera.distance > 0] or [base]
    scale = _Scale(min(*distances, float(plan["radius"])), max(*distances, base))
    counts = ", ".join(
        f"{sum(camera.kind == kind for camera in cameras)} {name}" for kind, name in LABELS.items()
    )  # fmt: skip
    title = f"{label}, seen from above: {counts}, around the target"
    bearing = _free_bearing(cameras)
    drawing = tag(
        "svg",
        tag("title", title),
        [_ring(scale, base, zoom, bearing) for zoom in _zooms(scale, base)],
        [_mark(camera, scale) for camera in cameras],
        tag("path", d=f"M{CENTRE - 6} {CENTRE}h12M{CENTRE} {CENTRE - 6}v12", class_="target"),
        viewBox=_window(cameras, scale, bearing),
        role="img",
        class_="map",
        attributes={"aria-label": title},
    )
    keys = [
        tag("li", _legend_mark(kind), f"{name} ({sum(camera.kind == kind for camera in cameras)})")
        for kind, name in LABELS.items()
    ]
    keys.append(tag("li", tag("span", "+", class_="key target-key", aria_hidden="true"), "target"))
    return tag(
        "figure",
        drawing,
        tag("ul", keys, class_="legend"),
        tag(
            "figcaption", "Bearing as from above; distance to the target on a logarithmic scale, rings in times closer."
        ),
        class_="plan",
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
    """Where the rings' labels go, radians: beside the cameras where they are on one side, to the upper right else."""
    bearings = [math.atan2(c.offset[1], c.offset[0]) for c in cameras]
    x, y = (sum(part(b) for b in bearings) / max(len(bearings), 1) for part in (math.cos, math.sin))
    if math.hypot(x, y) < 0.5:
        return math.pi / 4
    middle = math.atan2(y, x)
    apart = max(abs(math.remainder(b - middle, math.tau)) for b in bearings)
    return middle + min(apart + 0.3, math.pi)


def _clear_of(bearing: float, radius: float) -> float:
    """``bearing``, turned on for a small ring: the same angle is a shorter way there, and marks are as large."""
    return bearing + max(LABEL_ROOM / radius - 0.3, 0.0)


def _window(cameras: Sequence[Camera], scale: _Scale, bearing: float) -> str:
    """viewBox: the square that holds cameras, target and labels, so that a forward-facing capture fills the map."""
    places = [_place(camera, scale) for camera in cameras] + [(CENTRE, CENTRE), _polar(RADIUS, bearing)]
    low = [min(place[axis] for place in places) - MARGIN for axis in range(2)]
    high = [max(place[axis] for place in places) + MARGIN for axis in range(2)]
    side = min(max(high[0] - low[0], high[1] - low[1], SMALLEST), SIZE)
    left, top = (min(max((a + b - side) / 2, 0), SIZE - side) for a, b in zip(low, high))
    return f"{left:.1f} {top:.1f} {side:.1f} {side:.1f}"


def _polar(radius: float, bearing: float) -> tuple[float, float]:
    return CENTRE + radius * math.cos(bearing), CENTRE - radius * math.sin(bearing)


def _place(camera: Camera, scale: _Scale) -> tuple[float, float]:
    """Where a camera is drawn. One right above the target has no bearing and goes to the right (atan2 of nothing)."""
    return _polar(scale.radius(camera.distance), math.atan2(camera.offset[1], camera.offset[0]))


def _ring(scale: _Scale, base: float, zoom: int, bearing: float) -> Markup:
    radius = scale.radius(base / zoom)
    x, y = _polar(radius, _clear_of(bearing, radius))
    text = tag("text", f"{zoom}x", x=f"{x:.1f}", y=f"{y + 3:.1f}")
    return tag("g", tag("circle", cx=CENTRE, cy=CENTRE, r=f"{radius:.1f}"), text, class_="ring")


def _mark(camera: Camera, scale: _Scale) -> Markup:
    x, y = _place(camera, scale)
    ahead = (x + TICK * camera.forward[0], y - TICK * camera.forward[1])
    tick = tag("line", x1=f"{x:.1f}", y1=f"{y:.1f}", x2=f"{ahead[0]:.1f}", y2=f"{ahead[1]:.1f}")
    title = tag("title", f"{LABELS[camera.kind]}: {camera.name}, {camera.distance:.3g} from the target")
    return tag("g", title, tick, _shape(camera.kind, x, y), class_=f"camera {camera.kind}")


def _shape(kind: str, x: float, y: float) -> Markup:
    """A shape per kind as well as a colour: the colours alone tell nothing to one man in twelve."""
    if kind == "known":
        return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3")
    if kind == "anchor":
        return tag("rect", x=f"{x - 4:.1f}", y=f"{y - 4:.1f}", width="8", height="8")
    if kind == "update":
        return tag("path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z")
    return tag("path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z")


def _legend_mark(kind: str) -> Markup:
    return tag("svg", tag("g", _shape(kind, 7, 7), class_=f"camera {kind}"), viewBox="0 0 14 14", class_="key",
               aria_hidden="true")  # fmt: skip


def _camera(kind: str, name: str, view: dict[str, Any], target: Sequence[float]) -> Camera:
    pose = view["c2w"]
    x, y, z = (float(pose[axis][3]) - target[axis] for axis in range(3))
    fx, fy, fz = (float(pose[axis][2]) for axis in range(3))
    return Camera(kind, str(name), (x, y, z), (fx, fy, fz))
