"""Options of the enhancers: plain data, so that choosing one never imports another's dependencies."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION, LoadsOldRuns

if TYPE_CHECKING:
    from closeup_ns.refine.enhance.enhancer import Enhancer


class EnhancerOptions(LoadsOldRuns):
    """Base of each enhancer's options: names its class, which is imported only when it is built."""

    _target: ClassVar[str]
    """``module:class`` of the enhancer."""

    def setup(self, device: torch.device) -> Enhancer:
        """Imports and constructs the enhancer on ``device``; weights are loaded at the first ``enhance``."""
        module, name = self._target.split(":")
        return getattr(importlib.import_module(module), name)(self, device)

    def why_not(self, device: torch.device) -> str | None:
        """Why it cannot run here, and what to do, in one line; None where it can. Looks at packages and files only."""
        module, _ = self._target.split(":")
        return importlib.import_module(module).why_not(self, device)


@dataclass
class See3DSRConfig(EnhancerOptions):
    """See3D's own multi-view stage from 512 to 1024 pixels: consistent between views, guided by the references."""

    _target: ClassVar[str] = "closeup_ns.refine.enhance.see3d_sr:See3DSREnhancer"

    weights: str = SEE3D_HUB
    """As for the refiner: local folder, hub id, or "tiny"."""
    revision: str = SEE3D_REVISION
    """Commit of the hub's repository."""
    frames: int = 8
    """Most pictures in one joint pass, references included: at 1024 pixels each costs four times as much."""
    size: int = 1024
    """Longest side, pixels, that the network sees; a multiple of 64."""
    steps: int = 30
    """Denoising steps asked for; the published schedule takes one more."""
    guidance: float = 1.0
    """See3D's convention; 1 is a scale of 2 elsewhere."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Precision. auto: fp16 on a GPU, fp32 on a CPU."""


@dataclass
class SDX4Config(EnhancerOptions):
    """Stable Diffusion's x4 upscaler (openrail++) on the refined view shrunk first: each view by itself."""

    _target: ClassVar[str] = "closeup_ns.refine.enhance.sd_x4:SDX4Enhancer"

    model: str = "stabilityai/stable-diffusion-x4-upscaler"
    """Local folder or hub id."""
    revision: str | None = None
    """Commit of the hub's repository."""
    shrink: float = 0.5
    """The view is shrunk to this share of its size before it is upscaled four times."""
    tile: int = 256
    """Longest side of the small picture, pixels, that the network sees; a multiple of 64. Larger ones are tiled."""
    noise_level: int = 20
    """Noise on the small image, 0 to 350: more invents more."""
    steps: int = 30
    """Denoising steps."""
    guidance: float = 4.0
    """Classifier-free guidance on the prompt."""
    prompt: str = "a sharp photograph, fine detail"
    """What the picture is."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Precision. auto: fp16 on a GPU, fp32 on a CPU."""


@dataclass
class SDXLConfig(EnhancerOptions):
    """SDXL image-to-image at low strength (openrail++): each view by itself."""

    _target: ClassVar[str] = "closeup_ns.refine.enhance.sdxl:SDXLEnhancer"

    model: str = "stabilityai/stable-diffusion-xl-refiner-1.0"
    """Local folder or hub id."""
    revision: str | None = None
    """Commit of the hub's repository."""
    strength: float = 0.25
    """Share of the denoising that is done anew, 0 to 1: more invents more."""
    steps: int = 40
    """Denoising steps of the whole schedule, of which ``strength`` are taken."""
    guidance: float = 5.0
    """Classifier-free guidance on the prompt."""
    prompt: str = "a sharp photograph, fine detail"
    """What the picture is."""
    size: int = 1024
    """Longest side, pixels, that the network sees; smaller views are enlarged to it and brought back."""
    dtype: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Precision. auto: fp16 on a GPU, fp32 on a CPU."""


@dataclass
class CommandEnhancerConfig(EnhancerOptions):
    """An external program: a folder of pictures goes in, one of pictures comes out.

    SUPIR can be used so by those whose licence allows it.
    """

    _target: ClassVar[str] = "closeup_ns.refine.enhance.command:CommandEnhancer"

    run: str = ""
    """The command, such as "python enhance.py {input} {output}". Not a shell line."""
    timeout: float = 3600.0
    """Seconds for one pass; a program that takes longer is stopped."""
    frames: int = 18
    """Most pictures in one call; 1 calls it for each picture alone."""


@dataclass
class EnhancerConfig(LoadsOldRuns):
    """Which enhancer follows the refiner, and the options of each."""

    kind: Literal["none", "see3d-sr", "sd-x4", "sdxl", "command"] = "none"
    """none by default: in the paper's Table 3 enhancing gained 0.08 dB, but cost some after reliable pixels alone."""
    see3d_sr: See3DSRConfig = field(default_factory=See3DSRConfig)
    """Options for ``kind=see3d-sr``."""
    sd_x4: SDX4Config = field(default_factory=SDX4Config)
    """Options for ``kind=sd-x4``."""
    sdxl: SDXLConfig = field(default_factory=SDXLConfig)
    """Options for ``kind=sdxl``."""
    command: CommandEnhancerConfig = field(default_factory=CommandEnhancerConfig)
    """Options for ``kind=command``."""

    def chosen(self) -> EnhancerOptions | None:
        """The options of the configured kind; None where nothing is enhanced."""
        return None if self.kind == "none" else getattr(self, self.kind.replace("-", "_"))
