"""The model as it was before the first round, beside the refined one: same code, other Gaussians."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from closeup_ns.errors import CheckpointError
from closeup_ns.model.model import CloseupModel

_PREFIX = "_model."


def base_checkpoint(models: Path, base_steps: int) -> Path:
    """The checkpoint that ends the base phase.

    CheckpointError where it is not there; says why, and how to have it the next time.
    """
    path = models / f"step-{base_steps - 1:09d}.ckpt"
    if not path.exists():
        raise CheckpointError(
            f"the base model is not here: {path.name} was not kept (or the run has not come so far). "
            "Train with --save-only-latest-checkpoint False to be able to compare"
        )
    return path


class BaseModel:
    """Gaussians and pixel kernel of the base phase."""

    def __init__(self, gaussians: dict[str, Tensor], kernel: Tensor, footprint: Tensor) -> None:
        self.gaussians, self.kernel, self.footprint = gaussians, kernel, footprint

    @classmethod
    def load(cls, path: Path, device: torch.device | str) -> BaseModel:
        """Read the Gaussians of a checkpoint of ours. CheckpointError where it cannot be read, or is none of ours."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)["pipeline"]
            prefix = f"{_PREFIX}gauss_params."
            gaussians = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            return cls(gaussians, state[f"{_PREFIX}screen_kernel"], state[f"{_PREFIX}footprint"])
        except Exception as error:
            raise CheckpointError(f"{path} cannot be shown as the base model ({error})") from error

    @contextmanager
    def shown_by(self, model: CloseupModel) -> Iterator[None]:
        """Within, ``model`` renders the base phase. The caller holds the lock that keeps training away meanwhile."""
        own = {name: parameter.data for name, parameter in model.gauss_params.items()}
        kernel, footprint = model.screen_kernel.clone(), model.footprint
        try:
            for name, parameter in model.gauss_params.items():
                parameter.data = self.gaussians[name]
            model.screen_kernel.copy_(self.kernel)
            model.footprint = self.footprint
            yield
        finally:
            for name, parameter in model.gauss_params.items():
                parameter.data = own[name]
            model.screen_kernel.copy_(kernel)
            model.footprint = footprint
