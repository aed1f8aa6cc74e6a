"""What the rounds work on: the model, the photographs, the settings, and the trainer where there is a training."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from nerfstudio.engine.trainer import Trainer
from torch import Tensor

from closeup_ns.data.originals import Original
from closeup_ns.model.model import CloseupModel
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.rounds.views import InjectedView, NativeView
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View

_FRAME_SECONDS = 5.0
"""A viewer's frame takes less."""

EvalPhotograph = tuple[View, Float[Tensor, "H W 3"], Bool[Tensor, "H W"] | None]
"""Camera, colours in [0, 1], pixels that count (None: all)."""


class Photographs(Protocol):
    """The capture as it is trained on. `closeup_ns.studio.datamanager` is the one implementation."""

    injected: list[InjectedView]
    native: list[NativeView]
    held_out: frozenset[int]
    """Indices of photographs that are not trained on for now; their native views are not either."""
    pose_motion: dict[str, Float[Tensor, "6"]]
    """By name of a native view: how far it is from its photograph's pose as given, ``c2w @ exp(motion)``, in float64 on
    the CPU; kept in checkpoints. One that is missing is where that pose is."""

    def photograph_names(self) -> list[str]: ...
    def train_views(self) -> list[View]: ...
    def frame(self) -> tuple[Float[Tensor, "3 4"], float]: ...
    def train_view(self, index: int) -> View: ...
    def photograph(self, index: int) -> Float[Tensor, "H W 3"]: ...
    def counted(self, index: int) -> Bool[Tensor, "H W"] | None: ...
    def shown(self, index: int) -> Bool[Tensor, "H W"] | None: ...
    def before_background(self, image: Tensor) -> Float[Tensor, "H W 3"]: ...
    def eval_photographs(self) -> Iterator[EvalPhotograph]: ...
    def eval_photograph(self, index: int) -> EvalPhotograph: ...
    def originals(self) -> list[Original | None]: ...
    def eval_originals(self) -> list[Original | None]: ...
    def native_view(self, native: NativeView) -> View: ...
    def native_image(self, native: NativeView) -> tuple[Float[Tensor, "H W 3"], Bool[Tensor, "H W"] | None]: ...
    def native_shown(self, native: NativeView) -> Bool[Tensor, "H W"] | None: ...
    def hold_out(self, indices: Iterable[int]) -> None: ...
    def sampler_state(self) -> Any: ...
    def restore_sampler(self, state: Any) -> None: ...
    def mix(self, number: int, native_share: float) -> None: ...


@dataclass(eq=False)
class Run:
    """One run of closeup-gs, as the rounds see it."""

    model: CloseupModel
    photographs: Photographs
    settings: RoundSettings
    trainer: Trainer | None = None
    """None where a finished run is only rendered."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def native_views(self, number: int) -> list[NativeView]:
        """Those of round ``number`` that are trained on."""
        return [view for view in self.photographs.native if view.round_index == number]

    def render(self, view: View) -> Rendered:
        """The model's view with the photographs' pixel; lets a viewer that waits draw a frame first."""
        self.give_way()
        return self.model.render_view(view)

    def give_way(self) -> None:
        """Let a viewer that waits for the training lock render one frame; called between two renders of a long stage.

        Without it, a round's planning and refinement would freeze the viewer for minutes. The caller holds the lock, as
        all training callbacks do; where nobody is connected, nothing happens.
        """
        trainer = self.trainer
        viewer = getattr(trainer, "viewer_state", None)
        if trainer is None or not getattr(viewer, "render_statemachines", None) or not trainer.train_lock.locked():
            return
        lock = trainer.train_lock
        lock.release()
        try:
            # Python's locks are not fair: whoever releases one and asks for it at once gets it again.
            time.sleep(0.002)
        finally:
            try:
                lock.acquire()
            except KeyboardInterrupt:  # the training loop releases the lock on its way out
                lock.acquire(timeout=_FRAME_SECONDS)  # no longer: it may have come when the lock was ours already
                raise
