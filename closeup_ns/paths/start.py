"""The view to start from."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from closeup_ns.data.names import find_photograph
from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.paths.clearance import hides_target
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View
from closeup_ns.views.warp import most_central

_CANDIDATES = 12
"""How many of the best-aimed training views are looked at for one that sees the target unobstructed."""


def choose_start(
    views: Sequence[View], names: Sequence[str], wanted: str | None, target: Float[Tensor, "3"], render: Renderer
) -> tuple[View, list[str]]:
    """The view to start from, with warnings: the one called ``wanted``, or the best aimed that sees the target.

    Raises:
        CloseupError: no view has the wanted name.
        PlanningError: no view has the target in its image.
    """
    if wanted is not None:
        try:
            return views[find_photograph(names, wanted)], []
        except LookupError as error:
            raise CloseupError(f"--start-view: of the training images {error}") from None
    aimed = most_central(views, target)
    if not aimed:
        raise PlanningError("no training image has the target in it; choose another target")
    for index in aimed[:_CANDIDATES]:
        if not hides_target(views[index], target.to(views[index].c2w), render):
            return views[index], []
    best = aimed[0]
    return views[best], [f"every training image has something in front of the target; starting from {names[best]}"]
