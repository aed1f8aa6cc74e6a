"""Which implementation renders on a device, and why: said in one line."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from closeup_ns.errors import CloseupError

Backend = Literal["gsplat", "cpu", "torch"]


def kernels_available() -> tuple[bool, str]:
    return False, "not built yet"


def choose_backend(means: Tensor, wanted: Literal["auto", "gsplat", "cpu", "torch"]) -> Backend:
    if wanted == "auto":
        return "gsplat" if means.is_cuda else ("cpu" if kernels_available()[0] else "torch")
    return wanted
