"""A click becomes a target."""

from __future__ import annotations

from collections.abc import Sequence

from closeup_ns.errors import PlanningError
from closeup_ns.planning.survey import ALPHA
from closeup_ns.planning.target import WINDOW, Target, target_from_pixel
from closeup_ns.viewer.markdown import escape
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View


def target_from_click(
    view: View,
    screen: tuple[float, float],
    known: Sequence[View],
    render: Renderer,
) -> Target:
    """The surface behind a click, measured as any other target is.

    Args:
        view: what the viewport shows, at the size in which depth is looked up.
        screen: column and row of the click as shares of the viewport, 0 to 1 from the top left.
        known: the training views.

    Raises:
        PlanningError: a click on empty sky or outside the image, or a point that no training view sees.
    """
    column, row = (min(int(share * size), size - 1) for share, size in zip(screen, (view.width, view.height)))
    if min(screen) < 0 or max(screen) > 1:
        raise PlanningError("the click was outside the image: click on the object")
    half = WINDOW // 2
    window = render(view).alpha[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
    if not bool((window > ALPHA).any()):
        raise PlanningError(
            f"a click on empty sky: what is rendered there is {float(window.max()):.0%} opaque. Click on the object"
        )
    return target_from_pixel(view, column, row, render, known)


def describe(target: Target) -> str:
    """A target as Markdown: its world coordinates, its distance in world units, its reliability, its warnings."""
    place = ", ".join(f"{value:.3f}" for value in target.point.tolist())
    lines = [
        f"**Target** ({place})",
        f"{target.distance:.3g} from the photographs that see it, reliability {target.reliability:.0%}",
        *(f"⚠ {escape(warning)}" for warning in target.warnings),
    ]
    return "  \n".join(lines)
