"""What a round adds to the photographs: native views, which are photographs, and injected views, which are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, UInt8
from torch import Tensor

from closeup_ns.model.losses import InjectedTarget
from closeup_ns.views.view import View


@dataclass(frozen=True, eq=False)
class InjectedView:
    """A rendered and refined view that the model trains on beside the photographs."""

    name: str
    round_index: int
    view: View
    target: InjectedTarget
    densifies: bool
    """Whether its gradients count for densification (4.3.4)."""


@dataclass(frozen=True, eq=False)
class NativeView:
    """A crop of a photograph's original, trained on as a photograph is: real, weight 1, the base's loss."""

    name: str
    round_index: int
    photograph: int
    """Index of the photograph that it is a part of: its pose and its exposure are that photograph's."""
    view: View
    """Pinhole camera of the crop. Only its intrinsics and size are used: the photograph's pose may be refined later."""
    spacing: float
    """Pixels of the original between two pixels of the crop: 1 at native resolution, more where it was averaged."""
    read: Callable[[], tuple[UInt8[Tensor, "H W C"], Bool[Tensor, "H W"] | None]]
    """Its pixels (RGB, or RGBA where the photograph is), and those of them that count (None: all)."""
