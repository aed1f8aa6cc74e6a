"""How much memory a stage of a round took: of the GPU, or without one of the process."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

_MB = 2**20
_highest: dict[torch.device, int] = {}
"""Bytes: each GPU's peak before its counter was last set back."""


@dataclass
class Peak:
    """The most memory that was in use; filled in when the stage ends."""

    megabytes: float = 0.0
    of: Literal["GPU", "process"] = "process"


@contextmanager
def measured(device: torch.device | str) -> Iterator[Peak]:
    """Measure the block. On a GPU its own peak; elsewhere the process's since its start, which never falls."""
    device, peak = torch.device(device), Peak()
    if device.type == "cuda":
        peak.of = "GPU"
        _highest[device] = max(_highest.get(device, 0), torch.cuda.max_memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak.megabytes = process_peak_mb()
    if device.type == "cuda":
        peak.megabytes = round(torch.cuda.max_memory_allocated(device) / _MB, 1)


def process_peak_mb() -> float:
    """Most main memory that the process held since its start."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def gpu_peak_mb(device: torch.device | str) -> float:
    """Most GPU memory that tensors held since the process's start, ``measured`` stages included."""
    device = torch.device(device)
    return round(max(_highest.get(device, 0), torch.cuda.max_memory_allocated(device)) / _MB, 1)
