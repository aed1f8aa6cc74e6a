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
    centre = SIZE / 2
    drawing = tag(
        "svg",
        tag("title", title),
        [_ring(scale, base, zoom) for zoom in _zooms(scale, base)],
        [_mark(camera, scale) for camera in cameras],
        tag("path", d=f"M{centre - 6} {centre}h12M{centre} {centre - 6}v12", class_="target"),
        viewBox=f"0 0 {SIZE} {SIZE}",
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


def _ring(scale: _Scale, base: float, zoom: int) -> Markup:
    radius, centre = scale.radius(base / zoom), SIZE / 2
    text = tag("text", f"{zoom}x", x=f"{centre + radius * 0.7071 + 2:.1f}", y=f"{centre - radius * 0.7071 - 2:.1f}")
    return tag("g", tag("circle", cx=centre, cy=centre, r=f"{radius:.1f}"), text, class_="ring")


def _mark(camera: Camera, scale: _Scale) -> Markup:
    x, y, _ = camera.offset
    level = math.hypot(x, y)
    radius = scale.radius(camera.distance)
    # A camera right above the target has no bearing; it goes where its offset points, or to the right.
    px, py = (
        (SIZE / 2 + radius * x / level, SIZE / 2 - radius * y / level) if level > 0 else (SIZE / 2 + radius, SIZE / 2)
    )
    fx, fy = camera.forward[0], -camera.forward[1]
    tick = tag(
        "line", x1=f"{px:.1f}", y1=f"{py:.1f}", x2=f"{px + TICK * fx:.1f}", y2=f"{py + TICK * fy:.1f}"
    )  # fmt: skip
    times = f"{camera.distance:.3g} from the target"
    return tag("g", tag("title", f"{LABELS[camera.kind]}: {camera.name}, {times}"), tick, _shape(camera.kind, px, py),
               class_=f"camera {camera.kind}")  # fmt: skip


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
