"""How the diffusion libraries are used by everything that generates: the precision of their numbers, and their silence.

diffusers and transformers are imported inside: choosing a refiner must not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["auto", "fp16", "bf16", "fp32"]
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def precision_name(precision: Precision, device: torch.device) -> Literal["fp16", "bf16", "fp32"]:
    """What ``auto`` means on ``device``: half where a GPU has units for it, full on a CPU."""
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return precision


def torch_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of a network's numbers."""
    return _DTYPES[precision_name(precision, device)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and reports: what matters in them is raised as an error."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    # Older diffusers do not say whether they draw bars; they do unless told otherwise.
    bars = [getattr(library, "is_progress_bar_enabled", lambda: True)() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity(library.CRITICAL)
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # for those who write pipelines, not for those who use them
            yield
    finally:
        for library, verbosity, had_bars in zip(libraries, before, bars, strict=True):
            library.set_verbosity(verbosity)
            if had_bars:
                library.enable_progress_bar()
