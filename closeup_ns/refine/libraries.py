"""How the diffusion libraries are used by everything that generates: the precision of their numbers, their silence, and
what they say when memory runs out.

diffusers and transformers are imported inside: choosing a refiner must not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from closeup_ns.errors import RefinerOutOfMemory
from closeup_ns.refine.options import Precision

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)
"""What PyTorch says where it has no class of its own for it: main memory, other accelerators, the workspaces of cuBLAS
and of cuDNN, whose convolutions find no algorithm that fits into what is left."""
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def precision_name(precision: Precision, device: torch.device) -> Literal["fp16", "bf16", "fp32"]:
    """What ``auto`` means on ``device``: half where a GPU has units for it, full on a CPU."""
    if precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return precision


def torch_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type of a network's numbers."""
    return _DTYPES[precision_name(precision, device)]


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that something did not fit into memory, whoever raised it: with less it might go on."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, RefinerOutOfMemory, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY)


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of diffusers and transformers, and from then on without their reports and progress bars."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # for those who write pipelines, not for those who use them
        yield
