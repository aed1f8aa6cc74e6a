"""The compiled kernels as Python calls: loads the library, declares its functions, hands over tensors as pointers."""

from __future__ import annotations

import ctypes
import functools
import glob
import os

import torch
from torch import Tensor

from closeup_ns.errors import CloseupError
from closeup_ns.rendering.build import BuildError, find_or_compile, runnable_variants

_POINTER, _INT, _LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
# Per function: its arguments as letters. p: pointer, i: int, l: 64-bit int. Each ends with the number of threads.
_SIGNATURES = {
    "closeup_project_forward": "lp" + "p" * 4 + "p" * 7 + "i",
    "closeup_project_backward": "lp" + "p" * 4 + "p" + "p" * 4 + "p" * 5 + "i",
    "closeup_shade_forward": "lii" + "p" * 5 + "i",
    "closeup_shade_backward": "lii" + "p" * 4 + "p" * 2 + "p" * 3 + "i",
    "closeup_raster_forward": "plii" + "iii" + "p" * 6 + "p" + "p" * 2 + "i",
    "closeup_raster_backward": "p" + "p" * 4 + "p" * 6 + "i",
    "closeup_ssim": "iii" + "p" * 3 + "p" * 2 + "i",
    "closeup_gather_forward": "iiiiii" + "p" * 3 + "p" * 2 + "i",
    "closeup_gather_backward": "iiiiii" + "p" * 3 + "p" * 2 + "p" * 2 + "i",
}
_TYPES = {"p": _POINTER, "i": _INT, "l": _LONG}


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
        """The instruction set: avx512, avx2 or generic."""

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


def _share_openmp_with_torch() -> None:
    """Make torch's own OpenMP runtime the one that the kernels bind to: two thread pools would fight for the cores."""
    for path in glob.glob(os.path.join(os.path.dirname(torch.__file__), "lib", "libgomp*")):
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


@functools.cache
def load_kernels(variant: str | None = None) -> Kernels:
    """The kernels for an instruction set, by default the best that this CPU runs. CloseupError where there are none."""
    runnable = runnable_variants()
    wanted = variant or runnable[0]
    if wanted not in runnable:
        raise CloseupError(f"this CPU cannot run the {wanted} kernels, only {', '.join(runnable)}")
    try:
        return Kernels(str(find_or_compile(wanted)))
    except (BuildError, OSError) as error:
        raise CloseupError(f"the CPU kernels are not available: {error}") from error
