"""Which view a path starts from."""

from __future__ import annotations

import pytest

from closeup_ns.errors import CloseupError, PlanningError
from closeup_ns.paths.start import choose_start
from tests.paths.rig import BLOCK, OPEN, TARGET, view_from
from tests.scenes import analytic_renderer


def test_start_is_the_best_aimed_view_that_sees_the_target() -> None:
    blocked = view_from(0.0, 0.0, 0.0)
    free = view_from(1.2, 0.0, 0.0, aim=(0.1, 0.0, 4.0))
    away = view_from(0.0, 0.0, 0.0, aim=(0.0, 0.0, -4.0))
    render = analytic_renderer(4.0, boxes=(BLOCK,))
    views, names = [blocked, free, away], ["a.png", "b.png", "c.png"]
    assert choose_start(views, names, None, TARGET, render) == (free, [])
    assert choose_start(views, names, None, TARGET, OPEN) == (blocked, [])
    assert choose_start(views, names, "c.png", TARGET, render) == (away, [])
    chosen, notes = choose_start([blocked], ["a.png"], None, TARGET, render)
    assert chosen is blocked and "in front of the target" in notes[0]
    with pytest.raises(CloseupError, match=r"a\.png"):
        choose_start(views, names, "missing.png", TARGET, render)
    with pytest.raises(PlanningError, match="another target"):
        choose_start([away], ["c.png"], None, TARGET, render)
