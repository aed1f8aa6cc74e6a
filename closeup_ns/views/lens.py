"""Where a lens puts what a pinhole camera would have seen: the forward models of nerfstudio's camera types.

Coordinates are normalised: a ray's (x / z, y / z) goes in, and what comes out becomes pixels through the K of the
photograph as it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

LensKind = Literal["perspective", "fisheye", "fisheye624"]


@dataclass(frozen=True)
class Lens:
    """A lens by its kind and its distortion parameters, in nerfstudio's order."""

    kind: LensKind = "perspective"
    parameters: tuple[float, ...] = ()
    """perspective (Brown) and fisheye (Kannala-Brandt): k1, k2, k3, k4, p1, p2. fisheye624 (Project Aria): k1 to k6,
    p1, p2, s1 to s4. Empty: no distortion."""

    def distort(self, xy: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Normalised coordinates on the photograph of normalised pinhole coordinates ``xy``."""
        if self.kind == "perspective":
            return self._brown(xy) if any(self.parameters) else xy
        return self._fisheye(xy) if self.kind == "fisheye" else self._fisheye624(xy)

    def _brown(self, xy: Tensor) -> Tensor:
        k1, k2, k3, _, p1, p2 = self.parameters
        x, y = xy.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return torch.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            dim=-1,
        )

    def _fisheye(self, xy: Tensor) -> Tensor:
        radius = xy.norm(dim=-1, keepdim=True)
        angle = torch.atan(radius)
        bent = _odd_polynomial(angle, self.parameters[:4])
        return torch.where(radius > 1e-12, xy * bent / radius.clamp_min(1e-12), xy)

    def _fisheye624(self, xy: Tensor) -> Tensor:
        radius = xy.norm(dim=-1, keepdim=True)
        angle = torch.atan(radius)
        parameters = self.parameters or (0.0,) * 12
        bent = _odd_polynomial(angle, parameters[:6])
        radial = torch.where(radius > 1e-12, xy * bent / radius.clamp_min(1e-12), xy)
        p, s = xy.new_tensor(parameters[6:8]), parameters[8:12]
        r2 = radial.square().sum(-1, keepdim=True)
        tangential = 2 * radial * (radial * p).sum(-1, keepdim=True) + r2 * p
        prism = torch.cat([r2 * (s[0] + r2 * s[1]), r2 * (s[2] + r2 * s[3])], dim=-1)
        return radial + tangential + prism


def _odd_polynomial(angle: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``angle * (1 + k1 angle^2 + k2 angle^4 + ...)``."""
    squared, total = angle.square(), torch.ones_like(angle)
    power = torch.ones_like(angle)
    for coefficient in coefficients:
        power = power * squared
        total = total + coefficient * power
    return angle * total
