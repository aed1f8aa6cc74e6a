"""What can be set about planning a round."""

from __future__ import annotations

from dataclasses import dataclass

from closeup_ns.errors import PlanningError


@dataclass
class PlannerConfig:
    """How many views a round has (paper, section 4.3; numbers from section 5.2)."""

    anchors: int = 5
    """k: known views that summarise what is known, and number of frontier views."""
    updates: int = 8
    """U: to-be-updated views between the anchors and the frontier."""
    candidates: int = 100
    """M: random views from which the to-be-updated ones are chosen."""

    def __post_init__(self) -> None:
        if min(self.anchors, self.updates, self.candidates) < 1:
            raise PlanningError("anchors, updates and candidates must be at least 1")
