"""Being built: the options of this refiner are there, the refiner is not."""

from __future__ import annotations

import torch


def why_not(config: object, device: torch.device) -> str | None:
    """Why it cannot run here."""
    del config, device
    return "this refiner is not part of this version"
