"""Options of the refiners: plain data, so that choosing one never imports another's dependencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["auto", "fp16", "bf16", "fp32"]
SEE3D_HUB = "bruiiii/See3D"


@dataclass
class See3DRefinerConfig:
    """Options of the paper's multi-view diffusion model (4.2, 4.3.3), for the refiner and for the stage see3d-sr."""

    weights: str = SEE3D_HUB
    """A local folder in the published layout, or a hub id whose files are in the local Hugging Face cache
    (`closeup-gs weights` fetches them)."""
    frames: int = 18
    """Most pictures in one joint pass, references included: the paper's 5 + 8 + 5. Memory grows with it, not with the
    number of views."""
    steps: int | None = None
    """Denoising steps asked for, 1 to 999; None: the published 50, and 30 for see3d-sr. The published schedule takes a
    few more."""
    dtype: Precision = "auto"
    """Precision of the network. auto: fp16 on a GPU, fp32 on a CPU."""
    cpu_offload: bool = False
    """Keep each network in main memory while another one works: less GPU memory, slower."""
    unknown: Literal["black", "render"] = "black"
    """What the refiner's network is shown where nothing is known: black, as in its training, or the render."""


@dataclass
class CommandRefinerConfig:
    """Options of an external program as refiner: a folder goes in, a folder comes out."""

    run: str = ""
    """The command, such as "python fix.py {input} {output}". Not a shell line: words are split as a shell would, and
    {input} and {output} become folders (docs/refiners.md says what is in them)."""
    timeout: float = 3600.0
    """Seconds for one pass; a program that takes longer is stopped."""
    generates: bool = True
    """Whether it invents detail: generated pixels weigh less and are marked."""
    frames: int = 18
    """Most pictures in one call, references included; 1 calls it for each view alone."""


@dataclass
class EnhanceConfig:
    """What sharpens the refined views (the paper's SUPIR)."""

    kind: Literal["none", "see3d-sr", "command"] = "none"
    """none by default: in the paper's Table 3 enhancing gained 0.08 dB, but cost some after reliable pixels alone.
    see3d-sr: See3D's own stage at 1024 pixels, with ``see3d``'s weights and options. command: an external program."""
    run: str = ""
    """For ``kind=command``: as the command of the refiner ``command``; its renders are the refined views."""
    timeout: float = 3600.0
    """Seconds for one call of that command."""


@dataclass
class RefinerConfig:
    """Which refiner the rounds use, and the options of each."""

    kind: Literal["auto", "reliable", "see3d", "command", "none"] = "auto"
    """auto: see3d where there is a GPU and its weights are here, else none. reliable: real colour warped from the
    photographs, no weights to download. see3d: the paper's diffusion model. command: any external program. none: no
    refined image; a round then has its native views alone."""
    see3d: See3DRefinerConfig = field(default_factory=See3DRefinerConfig)
    """Options for ``kind=see3d`` and ``enhance.kind=see3d-sr``."""
    command: CommandRefinerConfig = field(default_factory=CommandRefinerConfig)
    """Options for ``kind=command``."""
    enhance: EnhanceConfig = field(default_factory=EnhanceConfig)
    """What sharpens the refined views afterwards."""
