"""Rotations by their vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def skew(vector: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The matrix that multiplies as the cross product with ``vector`` does."""
    return torch.linalg.cross(vector.expand(3, 3), torch.eye(3).to(vector)).T


def rotation(vector: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The right-handed rotation about ``vector``, by its length in radians."""
    return torch.linalg.matrix_exp(skew(vector))
