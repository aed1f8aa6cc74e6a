"""Being built: the options of this refiner are there, the refiner is not."""

from __future__ import annotations

import torch


def why_not(run: str, device: torch.device) -> str | None:
    """Why it cannot run here."""
    del run, device
    return "this refiner is not part of this version"
