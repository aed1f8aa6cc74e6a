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
        radius = xy.norm(dim=-1, keepdim=True)
        angle = torch.atan(radius)
        coefficients = self.parameters[: 4 if self.kind == "fisheye" else 6]
        bent = angle * (1 + sum(k * angle ** (2 * i) for i, k in enumerate(coefficients, 1)))
        radial = torch.where(radius > 1e-12, xy * bent / radius.clamp_min(1e-12), xy)
        return self._prism(radial) if self.kind == "fisheye624" and self.parameters else radial

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

    def _prism(self, xy: Tensor) -> Tensor:
        p, s = xy.new_tensor(self.parameters[6:8]), self.parameters[8:12]
        r2 = xy.square().sum(-1, keepdim=True)
        tangential = 2 * xy * (xy * p).sum(-1, keepdim=True) + r2 * p
        prism = torch.cat([r2 * (s[0] + r2 * s[1]), r2 * (s[2] + r2 * s[3])], dim=-1)
        return xy + tangential + prism
