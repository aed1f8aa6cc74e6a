"""Options of the refiners: plain data, so that choosing one never imports another's dependencies."""

from __future__ import annotations

import importlib
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

if TYPE_CHECKING:
    from closeup_ns.refine.refiner import Refiner

SEE3D_HUB = "bruiiii/See3D"
SEE3D_REVISION = "cbf13b6f813137134907408e40d3f2a17d6f0a80"
"""The commit that third-party tools pin; the only one that this loader was written against (research/see3d.md 1.3)."""


class LoadsOldRuns:
    """A dataclass that a config.yml of an earlier version, which lacks the newer fields, still gives back whole."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            if field.name in state:
                continue
            if field.default_factory is not MISSING:
                self.__dict__[field.name] = field.default_factory()
            elif field.default is not MISSING:
                self.__dict__[field.name] = field.default
        self.__dict__.update(state)


class RefinerOptions(LoadsOldRuns):
    """Base of each refiner's options: names its class, which is imported only when it is built."""

    _target: ClassVar[str]
    """``module:class`` of the refiner. A string, so that choosing one refiner never imports another's dependencies."""

    def setup(self, device: torch.device) -> Refiner:
        """Imports and constructs the refiner on ``device``; weights are loaded at the first ``refine``."""
        module, name = self._target.split(":")
        return getattr(importlib.import_module(module), name)(self, device)

    def why_not(self, device: torch.device) -> str | None:
        """Why it cannot run here, and what to do, in one line; None where it can. Looks at packages and files only."""
        del device
        return None


@dataclass
class See3DRefinerConfig(RefinerOptions):
    """Options of the paper's refiner: a multi-view diffusion model that is told what is known (4.2, 4.3.3)."""

    _target: ClassVar[str] = "closeup_ns.refine.see3d.refiner:See3DRefiner"

    weights: str = SEE3D_HUB
    """A local folder in the published layout, a hub id (see `closeup-gs weights see3d`), or "tiny": small random
    towers, which exercise everything and refine nothing."""
    revision: str = SEE3D_REVISION
    """Commit of the hub's repository. Pinned: a changed model must not change a run silently."""
    unet: Literal["auto", "sparse", "single"] = "auto"
    """Which of the published networks refines. auto: ``single`` where there is one reference, ``sparse`` otherwise."""
    frames: int = 18
    """Most pictures in one joint pass, references included: the paper's 5 + 8 + 5. Memory grows with it, not with the
    number of views."""
    size: int = 512
    """Longest side, pixels, that the network sees; a multiple of 64. Larger views are tiled with overlap."""
    steps: int = 50
    """Denoising steps asked for; the published schedule takes three more."""
    guidance: float = 2.0
    """See3D's convention: prediction = (1 + g) conditional - g unconditional; 2 is a scale of 3 elsewhere."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Precision of the network. auto: fp16 on a GPU, fp32 on a CPU."""
    batched_guidance: bool = True
    """Both branches of the guidance in one call; off halves the activations and takes as long or longer."""
    cpu_offload: bool = False
    """Keep each tower in main memory while another one works: less GPU memory, slower."""
    unknown: Literal["render", "black"] = "render"
    """What the network is shown where nothing is known: the render as it is, or black, as in its training."""
    feather: int = 64
    """Overlap of neighbouring tiles, pixels of the network's input; they are blended over it."""

    def why_not(self, device: torch.device) -> str | None:
        from closeup_ns.refine.see3d.layout import why_not

        return self.contradiction() or why_not(self, device)

    def contradiction(self) -> str | None:
        """What is wrong with the options themselves, wherever they are used; None where nothing is."""
        from closeup_ns.refine.sizes import CELL, SIDE_MULTIPLE

        if self.frames < 2:
            return f"frames is {self.frames}, but a pass needs 2, a reference and a view"
        if self.size < SIDE_MULTIPLE or self.size % SIDE_MULTIPLE:
            return f"size is {self.size}; choose a positive multiple of {SIDE_MULTIPLE}"
        if not 0 <= self.feather <= self.size - CELL:
            return f"feather is {self.feather}; choose 0 to {self.size - CELL} for this size"
        return None


@dataclass
class DifixRefinerConfig(RefinerOptions):
    """Options of a one-step fixer in a diffusers pipeline that you name, such as nvidia/difix_ref (non-commercial)."""

    _target: ClassVar[str] = "closeup_ns.refine.difix:DifixRefiner"

    model: str = ""
    """Local folder or hub id of the pipeline. Empty on purpose: its licence is yours to read."""
    revision: str | None = None
    """Commit of the hub's repository; pin it when ``trust_remote_code`` is on."""
    trust_remote_code: bool = False
    """Run the Python code that comes with the model. Off: a pipeline that needs it is refused."""
    prompt: str = "remove degradation"
    """What the model was trained with."""
    timestep: int = 199
    """The single step's noise level."""
    use_reference: bool = True
    """Give the pipeline the nearest reference as ``ref_image``."""
    size: int = 1024
    """Longest side, pixels, that the pipeline is given; larger views are shrunk and brought back."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Precision. auto: fp16 on a GPU, fp32 on a CPU."""

    def why_not(self, device: torch.device) -> str | None:
        from closeup_ns.refine.difix import why_not

        return why_not(self, device)


@dataclass
class CommandRefinerConfig(RefinerOptions):
    """Options of an external program as refiner: a folder goes in, a folder comes out."""

    _target: ClassVar[str] = "closeup_ns.refine.command:CommandRefiner"

    run: str = ""
    """The command, such as "python fix.py {input} {output}". Not a shell line: words are split as a shell would, and
    {input} and {output} become folders (docs/refiners.md says what is in them)."""
    timeout: float = 3600.0
    """Seconds for one pass; a program that takes longer is stopped."""
    generates: bool = True
    """Whether it invents detail: generated pixels weigh less and are marked."""
    frames: int = 18
    """Most pictures in one call, references included; 1 calls it for each view alone."""

    def why_not(self, device: torch.device) -> str | None:
        from closeup_ns.refine.command import why_not

        return why_not(self.run, device)
