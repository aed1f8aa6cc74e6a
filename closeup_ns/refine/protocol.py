"""The interface that every refiner shares: what it may look at, and what it gives back (paper, Sec. 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from closeup_ns.views.reliability import Observation, ReliablePixels
from closeup_ns.views.rendered import Rendered
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
    names: Sequence[str]
    """Names of the views, for messages and files."""
    anchors: Sequence[GuideImage] = ()
    """The round's anchors (I^ref): what a generator takes detail and colour from. Sizes may differ."""
    neighbours: Sequence[GuideImage] = ()
    """Views of this round that are refined already and overlap with these: further references."""


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
