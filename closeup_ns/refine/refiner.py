"""What makes a rendered close-up better: the interface that every refiner shares, and how one is chosen.

Refiners are built at the first round that needs one, never at import and never when a pipeline is constructed:
ns-viewer, ns-eval and ns-render build the same pipeline and must not load a diffusion model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args, get_type_hints, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.errors import CloseupError, RefinerError
from closeup_ns.refine.options import CommandRefinerConfig, EnhanceConfig, RefinerConfig
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.reliability import Observation, ReliablePixels
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class GuideImage:
    """A finished picture that a generator may look at: an anchor, or a view of this round that is refined already."""

    name: str
    """As in the plan or the store: "train/frame_00012", "round1/t0_update_03", "t0_update_03"."""
    view: View
    """Camera, at the size of ``image``."""
    image: Float[Tensor, "H W 3"]
    """RGB in [0, 1]."""
    is_real: bool
    """True for a photograph."""


@dataclass(frozen=True, eq=False)
class RefineRequest:
    """Everything that a refiner may look at (paper, Sec. 4.2: render I', mask M', references I^ref)."""

    views: Sequence[View]
    """Where the close-ups are seen from."""
    renders: Sequence[Rendered]
    """The current model from each view, at the view's size."""
    masks: Sequence[ReliablePixels]
    """What is known about each view from real photographs."""
    references: Sequence[Observation]
    """Real photographs (or accepted earlier views) with the model's z-depth: the anchors of this round."""
    seed: int
    """The only source of randomness: the same request gives the same images."""
    names: Sequence[str] = ()
    """Names of the views, for messages and files; empty where they have none."""
    anchors: Sequence[GuideImage] = ()
    """The round's anchors (I^ref): what a generator takes detail and colour from. Sizes may differ."""
    neighbours: Sequence[GuideImage] = ()
    """Views of this round that are refined already and overlap with these: further references."""

    def __post_init__(self) -> None:
        if not len(self.views) == len(self.renders) == len(self.masks):
            raise ValueError(
                f"a RefineRequest needs one render and one mask per view, but has {len(self.views)} views, "
                f"{len(self.renders)} renders and {len(self.masks)} masks"
            )


@dataclass(frozen=True, eq=False)
class RefinedView:
    """One close-up after refinement, with the provenance and the worth of each pixel."""

    image: Float[Tensor, "H W 3"]
    """RGB in [0, 1]."""
    real: Bool[Tensor, "H W"]
    """True where real photographs set the colour, at the scale that they resolve. Never true for a generated colour."""
    weight: Float[Tensor, "H W"]
    """Trust for the loss, in [0, 1]; 0 where the refiner knows nothing beyond the render."""
    notes: dict[str, float | str] = field(default_factory=dict)
    """What the refiner has to say about this view, for the report. JSON-able, finite."""
    failure: str | None = None
    """Why there is no refined image, in one sentence; ``image`` is then the render and ``weight`` 0."""
    generated: bool | None = None
    """Whether anything in this very picture may be invented; None: as the refiner says of itself."""


@runtime_checkable
class Refiner(Protocol):
    """Turns rendered close-ups into better ones."""

    name: str
    """As it is called on the command line and in the report."""
    generates: bool
    """Whether it invents detail. Generated pixels get less weight in the loss and are marked as generated."""
    frames: int
    """Most pictures of one ``refine``, anchors and neighbours included; 1 where each view stands alone."""

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """One refined view for each requested one, in the same order, size, device and dtype. Deterministic.

        What goes wrong with one view is said in its ``failure``; the others are kept.

        Raises:
            RefinerError: nothing can be refined at all (weights, packages, options).
        """
        ...

    def close(self) -> None:
        """Frees what was loaded. The refiner may be used again; it then loads again."""
        ...


KINDS: tuple[str, ...] = get_args(get_type_hints(RefinerConfig)["kind"])
ENHANCERS: tuple[str, ...] = get_args(get_type_hints(EnhanceConfig)["kind"])
COMMAND_OPTION = "--pipeline.refiner.command.run"
ENHANCE_OPTION = "--pipeline.refiner.enhance.run"


def build_refiner(config: RefinerConfig, device: torch.device | str) -> tuple[Refiner, str]:
    """Builds the configured refiner, with its enhancer; call it when a round needs it. Nothing is loaded yet.

    Whether it can run is not asked here (`check_refiner` does): the views that it made can be looked at all the same.

    Returns:
        The refiner, and one line for the user that says which one is used and why.

    Raises:
        RefinerError: its options contradict each other.
        CloseupError: ``config.kind`` or ``config.enhance.kind`` names nothing of this version.
    """
    device = torch.device(device)
    kind, why = _chosen(config, device)
    refiner = _refiner(kind, config, device)
    what = f"{kind}, weights {config.see3d.weights}," if kind == "see3d" else kind
    invents = "generates detail, which is marked and weighs less" if refiner.generates else "invents nothing"
    line = f"refiner: {what} on {device} ({why}; {invents})"
    enhancer = _enhancer(config, device)
    if enhancer is None:
        return refiner, line
    from closeup_ns.refine.enhanced import EnhancedRefiner

    return EnhancedRefiner(refiner, enhancer), f"{line}, enhanced by {config.enhance.kind}"


def check_refiner(config: RefinerConfig, device: torch.device | str) -> None:
    """Refuse a refiner or an enhancer that cannot run here. Looks at packages and files only.

    For the start of a training, which should not find out after hours; never for what only looks at a finished run.

    Raises:
        RefinerError: what is missing or contradicts itself, and what to do.
        CloseupError: ``config`` names nothing of this version.
    """
    device = torch.device(device)
    build_refiner(config, device)  # options that contradict each other are refused here
    kind, _ = _chosen(config, device)
    if kind == "none" and config.enhance.kind != "none":
        raise RefinerError(
            f"the enhancer {config.enhance.kind} has no refined views to sharpen: choose --pipeline.refiner.kind "
            "reliable, see3d or command"
        )
    for what, reason in (
        (f"the refiner {kind}", _why_not(kind, config)),
        (f"the enhancer {config.enhance.kind}", _why_not_enhance(config)),
    ):
        if reason is not None:
            raise RefinerError(f"{what} cannot run here: {reason}")


def chosen_kind(config: RefinerConfig, device: torch.device | str) -> str:
    """The kind that refines on ``device``: the configured one, or what "auto" comes to."""
    return _chosen(config, torch.device(device))[0]


def _chosen(config: RefinerConfig, device: torch.device) -> tuple[str, str]:
    """Which kind refines, and why."""
    if config.kind not in KINDS:
        raise CloseupError(f"unknown refiner kind {config.kind!r}: choose {', '.join(KINDS)}")
    if config.kind != "auto":
        return config.kind, "as configured"
    if device.type != "cuda":
        return "none", "auto: see3d is for a GPU, and takes hours without one unless asked for"
    reason = _why_not("see3d", config)
    if reason is None:
        return "see3d", "auto: a GPU and the weights are here"
    return "none", f"auto: not see3d, since {reason}"


def _refiner(kind: str, config: RefinerConfig, device: torch.device) -> Refiner:
    """The refiner of one kind. Each module is imported only when it is chosen."""
    if kind == "none":
        from closeup_ns.refine.none import NoRefiner

        return NoRefiner()
    if kind == "reliable":
        from closeup_ns.refine.reliable import ReliableRefiner

        return ReliableRefiner()
    if kind == "see3d":
        from closeup_ns.refine.see3d.refiner import See3DRefiner
        from closeup_ns.refine.see3d.stage import BASE

        return See3DRefiner(config.see3d, device, BASE)
    from closeup_ns.refine.command import CommandRefiner

    return CommandRefiner(config.command, COMMAND_OPTION)


def _enhancer(config: RefinerConfig, device: torch.device) -> Refiner | None:
    """What sharpens refined views: a refiner whose renders they are. None where nothing does."""
    kind = config.enhance.kind
    if kind not in ENHANCERS:
        raise CloseupError(f"unknown enhancer {kind!r}: choose {', '.join(ENHANCERS)}")
    if kind == "none":
        return None
    if kind == "see3d-sr":
        from closeup_ns.refine.see3d.refiner import See3DRefiner
        from closeup_ns.refine.see3d.stage import SR

        return See3DRefiner(config.see3d, device, SR)
    from closeup_ns.refine.command import CommandRefiner

    command = CommandRefinerConfig(config.enhance.run, config.enhance.timeout, frames=config.command.frames)
    return CommandRefiner(command, ENHANCE_OPTION)


def _why_not(kind: str, config: RefinerConfig) -> str | None:
    """Why a refiner cannot run, and what to do, in one line; None where it can. Looks at packages and files only."""
    if kind == "see3d":
        from closeup_ns.refine.see3d.weights import why_not

        return why_not(config.see3d.weights, "sparse")
    if kind == "command":
        from closeup_ns.refine.external import Program

        return Program(config.command.run, config.command.timeout, COMMAND_OPTION).why_not()
    return None


def _why_not_enhance(config: RefinerConfig) -> str | None:
    """The same for what sharpens refined views."""
    if config.enhance.kind == "see3d-sr":
        from closeup_ns.refine.see3d.weights import why_not

        return why_not(config.see3d.weights, "SR")
    if config.enhance.kind == "command":
        from closeup_ns.refine.external import Program

        return Program(config.enhance.run, config.enhance.timeout, ENHANCE_OPTION).why_not()
    return None
