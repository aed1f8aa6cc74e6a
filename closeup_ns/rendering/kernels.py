"""The compiled kernels as Python calls: loads the library, declares its functions, hands over tensors as pointers."""

from __future__ import annotations

import ctypes
import functools
import glob
import os

import torch
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.build import (
    VARIANT_FLAGS,
    BuildError,
    find_library,
    find_or_compile,
    runnable_variants,
)

_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
# Per function: its arguments as letters. p: pointer, i: int, l: 64-bit int. Each ends with the number of threads.
_SIGNATURES = {
    "closeup_project_forward": "lp" + "p" * 4 + "p" * 7 + "i",
    "closeup_project_backward": "lp" + "p" * 4 + "p" + "p" * 4 + "p" * 5 + "i",
    "closeup_project_surfels_forward": "lp" + "p" * 4 + "p" * 10 + "i",
    "closeup_project_surfels_backward": "lp" + "p" * 4 + "p" + "p" * 7 + "p" * 5 + "i",
    "closeup_shade_forward": "lii" + "p" * 5 + "i",
    "closeup_shade_backward": "lii" + "p" * 4 + "p" * 2 + "p" * 3 + "i",
    "closeup_raster_forward": "plii" + "iii" + "p" * 6 + "p" * 2 + "i",
    "closeup_raster_backward": "p" + "p" * 4 + "p" * 6 + "i",
    "closeup_surfel_forward": "plii" + "iii" + "p" * 11 + "p" * 4 + "i",
    "closeup_surfel_backward": "p" + "p" * 8 + "p" + "p" * 8 + "i",
    "closeup_ssim": "iii" + "p" * 3 + "p" * 2 + "i",
    "closeup_gather_forward": "iiiiii" + "p" * 3 + "p" * 2 + "i",
    "closeup_gather_backward": "iiiiii" + "p" * 3 + "p" * 2 + "p" * 2 + "i",
}
_TYPES = {"p": _POINTER, "i": _INT, "l": _LONG}

CHOICE_VARIABLE = "CLOSEUP_KERNELS"
"""Environment variable that chooses the instruction set by hand, or ``torch`` for none of our kernels."""


class KernelChoiceError(CloseupError):
    """``CLOSEUP_KERNELS`` asks for what cannot be had. Never answered with something else: it was an explicit wish."""


class Kernels:
    """One loaded library."""

    def __init__(self, path: str) -> None:
        _share_openmp_with_torch()
        self._library = ctypes.CDLL(path)
        for name, signature in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes = [_TYPES[letter] for letter in signature]
            function.restype = _INT
        self._library.closeup_lanes.restype = ctypes.c_char_p
        self._library.closeup_workspace_take.restype = _POINTER
        self._library.closeup_workspace_return.argtypes = [_POINTER]
        self._library.closeup_workspace_return.restype = None
        self.lanes: str = self._library.closeup_lanes().decode()
        """The instruction set, one of build.VARIANT_FLAGS."""

    def call(self, name: str, *arguments: Tensor | int | None) -> None:
        """Call ``closeup_<name>``. Tensors must be contiguous and on the CPU; MemoryError where memory ran out."""
        converted = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
        function = getattr(self._library, f"closeup_{name}")
        if function(*converted, torch.get_num_threads()) != 0:
            raise MemoryError(f"the CPU rasteriser ran out of memory in {name}")

    def take_workspace(self) -> int:
        """A rasteriser workspace, owned by the caller until it is returned."""
        workspace = self._library.closeup_workspace_take()
        if not workspace:
            raise MemoryError("the CPU rasteriser ran out of memory for a workspace")
        return workspace

    def return_workspace(self, workspace: int) -> None:
        """Give a workspace back, so that the next render can use its memory."""
        self._library.closeup_workspace_return(workspace)


class Workspace:
    """One camera's lists between forward and backward; its memory goes back to the kernels when nobody needs it."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.handle = kernels.take_workspace()

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.kernels.return_workspace(self.handle)


def _share_openmp_with_torch() -> None:
    """Make torch's own OpenMP runtime the one that the kernels bind to: two thread pools would fight for the cores."""
    folder = os.path.dirname(torch.__file__)
    for pattern in ("lib/libgomp*", "../torch.libs/libgomp*"):
        for path in glob.glob(os.path.join(folder, pattern)):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    # A torch of the distribution uses the system's runtime, or one of Intel's or LLVM's that knows GCC's calls as well.
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)


def chosen_variant() -> str | None:
    """What ``CLOSEUP_KERNELS`` asks for: an instruction set, ``torch``, or None for the best. KernelChoiceError."""
    wanted = os.environ.get(CHOICE_VARIABLE, "").strip().lower()
    if wanted in ("", "auto"):
        return None
    if wanted != "torch" and wanted not in VARIANT_FLAGS:
        choices = ", ".join(["auto", *VARIANT_FLAGS, "torch"])
        raise KernelChoiceError(f"{CHOICE_VARIABLE}={wanted} is none of {choices}")
    if wanted != "torch" and wanted not in runnable_variants():
        choices = ", ".join(["auto", *runnable_variants(), "torch"])
        raise KernelChoiceError(f"{CHOICE_VARIABLE}={wanted}, which this CPU cannot run; it can run {choices}")
    return wanted


def load_kernels(variant: str | None = None) -> Kernels:
    """The kernels for an instruction set, by default what ``CLOSEUP_KERNELS`` asks for or the best that this CPU runs.

    Where the best cannot be compiled, one that is there already serves. CloseupError where there are none.
    """
    if variant is not None:
        return _load(variant)
    wanted = chosen_variant()
    if wanted is None:
        return _load_best()
    if wanted == "torch":
        raise CloseupError(f"{CHOICE_VARIABLE}=torch asks for none of our kernels")
    try:
        return _load(wanted)
    except CloseupError as error:
        raise KernelChoiceError(f"{CHOICE_VARIABLE}={wanted}: {error}") from error


@functools.cache
def _load_best() -> Kernels:
    best, *others = runnable_variants()
    try:
        return _load(best)
    except CloseupError:
        for other in others:
            if find_library(other):
                return _load(other)
        raise


@functools.cache
def _load(variant: str) -> Kernels:
    runnable = runnable_variants()
    if variant not in runnable:
        raise CloseupError(f"this CPU cannot run the {variant} kernels, only {', '.join(runnable)}")
    try:
        return Kernels(str(find_or_compile(variant)))
    except (BuildError, OSError) as error:
        raise CloseupError(f"the CPU kernels are not available: {error}") from error
