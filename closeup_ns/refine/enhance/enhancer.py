"""The interface that every enhancer shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.refiner import GuideImage


@runtime_checkable
class Enhancer(Protocol):
    """Sharpens pictures. It always invents: what it made is marked as generated."""

    name: str
    """As it is called on the command line and in the report."""
    frames: int
    """Pictures that it can treat together, references included; 1 where each stands alone."""
    guided: bool
    """Whether it looks at the references; where not, it is given none."""

    def enhance(
        self, images: Sequence[Float[Tensor, "H W 3"]], references: Sequence[GuideImage], seed: int
    ) -> list[Float[Tensor, "H W 3"] | str]:
        """For each picture in [0, 1] one of the same size, device and dtype, or one sentence why there is none.

        Colours may have moved: whoever calls matches them. Deterministic.

        Raises:
            RefinerError: it cannot work at all; RefinerOutOfMemory where fewer pictures might fit.
        """
        ...

    def close(self) -> None:
        """Frees what was loaded. The enhancer may be used again; it then loads again."""
        ...
