"""Which implementation renders on a device, and why: said in one line."""

from __future__ import annotations

import functools
import sys
from typing import Literal

import torch
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.kernels import KernelChoiceError, load_kernels

Backend = Literal["gsplat", "cpu", "torch"]


@functools.lru_cache(maxsize=1)
def kernels_available() -> tuple[bool, str]:
    """Whether our CPU kernels can be used here, and what they are or why not. Compiles them if need be.

    KernelChoiceError where ``CLOSEUP_KERNELS`` asks for what cannot be had.
    """
    try:
        return True, f"{load_kernels().lanes} kernels"
    except KernelChoiceError:
        raise
    except CloseupError as error:
        return False, str(error)


@functools.lru_cache(maxsize=1)
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def choose_backend(means: Tensor, wanted: Literal["auto", "gsplat", "cpu", "torch"]) -> Backend:
    """The backend for tensors like ``means``. CloseupError where ``wanted`` cannot; ValueError for an unknown name."""
    if wanted not in ("auto", "gsplat", "cpu", "torch"):
        raise ValueError(f"rasterization: backend {wanted!r} is none of 'auto', 'gsplat', 'cpu', 'torch'")
    if wanted == "cpu":
        if means.device.type != "cpu":
            raise CloseupError(f"backend 'cpu' needs CPU tensors, these are on {means.device}; use 'gsplat' or 'auto'")
        load_kernels()
        return "cpu"
    if wanted != "auto":
        return wanted
    if means.is_cuda:
        return "gsplat"
    available, reason = kernels_available()
    if means.device.type == "cpu" and available:
        return "cpu"
    reason = reason if not available else f"there are none for {means.device.type}"
    _say_once(f"closeup-ns: rendering with plain PyTorch, about 100 times slower than our CPU kernels: {reason}")
    return "torch"


def describe_backend(device: torch.device | str) -> str:
    """One line that says what renders on ``device``, and why."""
    device = torch.device(device)
    if device.type == "cuda":
        return f"rendering on {torch.cuda.get_device_name(device)} with gsplat's CUDA kernels"
    available, reason = kernels_available()
    if device.type == "cpu" and available:
        return f"rendering on the CPU with our {reason}, {torch.get_num_threads()} threads"
    return f"rendering on {device.type} with plain PyTorch, about 100 times slower: {reason}"
