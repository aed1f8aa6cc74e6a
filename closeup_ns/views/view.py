"""A pinhole camera with a size, and the two camera operations of the paper's Appendix B.

Conventions: OpenCV camera axes (x right, y down, z forward), camera-to-world matrices, pixel centres at +0.5, no skew.
The paper's Euler-angle update (Eqs. 6-10) is not a look-at (its error reaches tens of degrees) and its Eq. 11
contradicts section 4.3.1; both operations here are exact instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.reading import build
from closeup_ns.views.rotation import skew

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
LONGEST_SIDE = 100_000
"""More pixels than any picture has along one side; a saved view that says so is damaged."""


@dataclass(frozen=True, eq=False)
class View:
    """A pinhole view: intrinsics, pose and image size. Immutable; two views are equal only if they are one object."""

    K: Float[Tensor, "3 3"]
    """Intrinsics in pixels of this view's size, principal point included; zero skew."""
    c2w: Float[Tensor, "4 4"]
    """Camera-to-world pose, OpenCV axes."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""

    @property
    def position(self) -> Float[Tensor, "3"]:
        """Camera centre in world coordinates."""
        return self.c2w[:3, 3]

    @property
    def forward(self) -> Float[Tensor, "3"]:
        """Unit vector along the optical axis, in world coordinates."""
        return self.c2w[:3, 2]

    @property
    def viewmat(self) -> Float[Tensor, "4 4"]:
        """World-to-camera matrix: the rigid inverse of ``c2w``."""
        rotation = self.c2w[:3, :3].T
        inverse = torch.eye(4, dtype=self.c2w.dtype, device=self.c2w.device)
        inverse[:3, :3] = rotation
        inverse[:3, 3] = -(rotation @ self.c2w[:3, 3])
        return inverse

    @property
    def device(self) -> torch.device:
        """Device of the pose."""
        return self.c2w.device

    def resized(self, long_side: int) -> View:
        """The same view with ``long_side`` pixels on its longer side; itself if it is not larger than that."""
        factor = long_side / max(self.width, self.height)
        if factor >= 1:
            return self
        return self.scaled_to(max(1, round(self.width * factor)), max(1, round(self.height * factor)))

    def scaled_to(self, width: int, height: int) -> View:
        """The same view sampled at ``width`` x ``height``. K is scaled per axis, exactly, so the frustum is kept."""
        scale = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return View(self.K * scale, self.c2w, width, height)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> View:
        """The same view on another device, in another floating-point type, or both."""
        return View(
            self.K.to(device=device, dtype=dtype), self.c2w.to(device=device, dtype=dtype), self.width, self.height
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists. JSON keeps every bit of float32 and float64, so `from_dict` is an exact inverse."""
        return {
            "K": self.K.detach().tolist(),
            "c2w": self.c2w.detach().tolist(),
            "width": self.width,
            "height": self.height,
            "dtype": str(self.c2w.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> View:
        """A view on the CPU from what `to_dict` wrote.

        Raises:
            CloseupError: this is no such content, or no camera: NaN, a pose that is no rotation, no field of view.
        """
        values = {name: value for name, value in content.items() if name != "dtype"}
        try:
            dtype = _DTYPES.get(content.get("dtype", "float32"))
            if dtype is None:
                raise ValueError(f"dtype {content['dtype']!r} is none of {sorted(_DTYPES)}")
            values |= {name: torch.tensor(values[name], dtype=dtype) for name in ("K", "c2w") if name in values}
        except (TypeError, ValueError, RuntimeError) as error:
            raise CloseupError(f"this is no saved View: {error}") from error
        view = build(cls, values)
        if problem := _impossible(view):
            raise CloseupError(f"this is no saved View: {problem}")
        return view


def _impossible(view: View) -> str | None:
    """Why no camera can be so; None where it can."""
    rotation, identity = view.c2w[:3, :3].double(), torch.eye(3, dtype=torch.float64)
    if (rotation @ rotation.T - identity).abs().max() > 1e-3 or torch.linalg.det(rotation) < 0:
        return "c2w holds no rotation"
    if view.c2w[3].tolist() != [0, 0, 0, 1] or view.K[2].tolist() != [0, 0, 1]:
        return "the last row of c2w is not 0 0 0 1, or that of K not 0 0 1"
    if view.K[0, 1] != 0 or view.K[1, 0] != 0:
        return "K has skew"
    for focal, side in ((float(view.K[0, 0]), view.width), (float(view.K[1, 1]), view.height)):
        if side > LONGEST_SIDE or not side / 1000 < focal < side * 1e6:
            return f"a focal length of {focal:g} pixels for {side} pixels"
    return None


def look_at(
    position: Float[Tensor, "3"],
    target: Float[Tensor, "3"],
    up: Float[Tensor, "3"],
    K: Float[Tensor, "3 3"],
    width: int,
    height: int,
) -> View:
    """A view from ``position`` with ``target`` on its optical axis and ``up`` (world) pointing up in the image.

    Where ``up`` is parallel to the line of sight, the world axis furthest from that line replaces it.

    Raises:
        CloseupError: ``position`` and ``target`` coincide.
    """
    forward = _direction_to(position, target)
    right = torch.linalg.cross(forward, _unit(up.double()))
    if right.norm() < 1e-6:
        substitute = torch.zeros_like(forward)
        substitute[forward.abs().argmin()] = 1.0
        right = torch.linalg.cross(forward, substitute)
    right = _unit(right)
    c2w = torch.eye(4, dtype=torch.float64, device=position.device)
    c2w[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    c2w[:3, 3] = position
    return View(K, c2w.to(position.dtype), width, height)


def aim_at(view: View, point: Float[Tensor, "3"]) -> View:
    """Turn ``view`` by the smallest rotation that brings world ``point`` onto its principal point (App. B, Eqs. 6-10).

    The roll follows the source camera, so the photographer's "up" is kept. A point exactly behind the camera is
    reached by turning about the camera's own vertical axis.

    Raises:
        CloseupError: ``point`` is the camera's centre.
    """
    rotation = view.c2w[:3, :3].double()
    direction = _direction_to(view.position, point)
    if torch.dot(rotation[:, 2], direction) < -1.0 + 1e-9:
        rotation = rotation * rotation.new_tensor([-1.0, 1.0, -1.0])
    turned = _rotation_between(rotation[:, 2], direction) @ rotation
    c2w = view.c2w.clone()
    c2w[:3, :3] = turned.to(c2w.dtype)
    return View(view.K, c2w, view.width, view.height)


def move_closer(view: View, point: Float[Tensor, "3"], zoom: float) -> View:
    """Divide the camera's distance to ``point`` (world) by ``zoom``, keeping its orientation (App. B, Eq. 11 righted).

    The new centre is ``point + (centre - point) / zoom``: zoom 3 is three times closer, below 1 moves away.
    """
    c2w = view.c2w.clone()
    anchor = point.to(c2w)
    c2w[:3, 3] = anchor + (view.position - anchor) / zoom
    return View(view.K, c2w, view.width, view.height)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-30)


def _direction_to(position: Tensor, target: Tensor) -> Tensor:
    """Float64 unit vector from ``position`` to ``target``: float32 would cost pixels at long focal lengths."""
    offset = target.double() - position.double()
    if not float(offset.norm()) > 0.0:
        raise CloseupError(
            f"a camera at {position.tolist()} cannot look at its own centre; choose another target point"
        )
    return _unit(offset)


def _rotation_between(start: Tensor, end: Tensor) -> Tensor:
    """The smallest rotation [3, 3] that turns unit vector ``start`` into ``end``, which must not be opposite."""
    turn = skew(torch.linalg.cross(start, end))
    return torch.eye(3).to(turn) + turn + turn @ turn / (1.0 + torch.dot(start, end))
