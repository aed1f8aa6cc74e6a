"""Choosing and building the configured refiner.

Refiners are built at the first round that needs one, never at import and never when a pipeline is constructed:
ns-viewer, ns-eval and ns-render build the same pipeline and must not load a diffusion model.
"""

from __future__ import annotations

import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import CommandRefinerConfig, RefinerConfig
from closeup_ns.refine.protocol import RefinedView, Refiner, RefineRequest

COMMAND_OPTION = "--pipeline.refiner.command.run"
ENHANCE_OPTION = "--pipeline.refiner.enhance.run"


def build_refiner(config: RefinerConfig, device: torch.device | str) -> tuple[Refiner, str]:
    """Builds the configured refiner, with its enhancer; call it when a round needs it. Nothing is loaded yet.

    `check_refiner` checks whether it can run; a run whose weights are gone can still be looked at.

    Returns:
        The refiner, and one line for the user that says which one is used and why.

    Raises:
        RefinerError: its options contradict each other.
    """
    device = torch.device(device)
    kind, why = _chosen(config, device)
    refiner = _built(kind, config, device, COMMAND_OPTION)
    what = f"{kind}, weights {config.see3d.weights}," if kind == "see3d" else kind
    invents = "generates detail, which is marked and weighs less" if refiner.generates else "invents nothing"
    line = f"refiner: {what} on {device} ({why}; {invents})"
    if config.enhance.kind == "none":
        return refiner, line
    from closeup_ns.refine.enhanced import EnhancedRefiner

    enhancer = _built(config.enhance.kind, config, device, ENHANCE_OPTION)
    return EnhancedRefiner(refiner, enhancer), f"{line}, enhanced by {config.enhance.kind}"


def check_refiner(config: RefinerConfig, device: torch.device | str) -> None:
    """Refuse a refiner or an enhancer that cannot run here. Looks at packages and files only.

    For the start of a training, which should not find out after hours; never for what only looks at a finished run.

    Raises:
        RefinerError: what is missing or contradicts itself, and what to do.
    """
    device = torch.device(device)
    build_refiner(config, device)  # options that contradict each other are refused here
    kind, _ = _chosen(config, device)
    if kind == "none" and config.enhance.kind != "none":
        raise RefinerError(
            f"the enhancer {config.enhance.kind} has no refined views to sharpen: choose --pipeline.refiner.kind "
            "reliable, see3d or command"
        )
    for what, one, option in (("refiner", kind, COMMAND_OPTION), ("enhancer", config.enhance.kind, ENHANCE_OPTION)):
        reason = _why_not(one, config, option)
        if reason is not None:
            raise RefinerError(f"the {what} {one} cannot run here: {reason}")


def chosen_kind(config: RefinerConfig, device: torch.device | str) -> str:
    """The kind that refines on ``device``: the configured one, or what "auto" comes to."""
    return _chosen(config, torch.device(device))[0]


class NoRefiner:
    """Passes the render on with weight 0, so that a round has only its sparse reliable pixels to learn from."""

    name = "none"
    generates = False
    frames = 1

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """The renders themselves; nothing in them is called real."""
        return [
            RefinedView(
                image=render.color.clamp(0, 1),
                real=torch.zeros_like(render.alpha, dtype=torch.bool),
                weight=torch.zeros_like(render.alpha),
            )
            for render in request.renders
        ]

    def close(self) -> None:
        """Nothing was loaded."""


def _chosen(config: RefinerConfig, device: torch.device) -> tuple[str, str]:
    """Which kind refines, and why."""
    if config.kind != "auto":
        return config.kind, "as configured"
    if device.type != "cuda":
        return "none", "auto: see3d is for a GPU, and takes hours without one unless asked for"
    reason = _why_not("see3d", config, COMMAND_OPTION)
    if reason is None:
        return "see3d", "auto: a GPU and the weights are here"
    return "none", f"auto: not see3d, since {reason}"


def _built(kind: str, config: RefinerConfig, device: torch.device, option: str) -> Refiner:
    """The refiner or enhancer of one kind. Each module is imported only when it is chosen.

    ``option`` names the option that holds its command, as does that of `_why_not`.
    """
    if kind == "none":
        return NoRefiner()
    if kind == "reliable":
        from closeup_ns.refine.reliable import ReliableRefiner

        return ReliableRefiner()
    if kind == "command":
        from closeup_ns.refine.programs.command import CommandRefiner

        return CommandRefiner(_command(config, option), option)
    from closeup_ns.refine.see3d.refiner import See3DRefiner
    from closeup_ns.refine.see3d.stage import BASE, SR

    return See3DRefiner(config.see3d, device, BASE if kind == "see3d" else SR)


def _command(config: RefinerConfig, option: str) -> CommandRefinerConfig:
    if option == COMMAND_OPTION:
        return config.command
    return CommandRefinerConfig(config.enhance.run, config.enhance.timeout, frames=config.command.frames)


def _why_not(kind: str, config: RefinerConfig, option: str) -> str | None:
    """Why a refiner or an enhancer cannot run, and what to do, in one line; None where it can.

    Looks at packages and files only.
    """
    if kind in ("see3d", "see3d-sr"):
        from closeup_ns.refine.see3d.weights import why_not

        return why_not(config.see3d.weights, "sparse" if kind == "see3d" else "SR")
    if kind == "command":
        from closeup_ns.refine.programs.external import Program

        command = _command(config, option)
        return Program(command.run, command.timeout, option).why_not()
    return None
