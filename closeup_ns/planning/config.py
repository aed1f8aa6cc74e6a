"""Everything about planning a round that can be set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from closeup_ns.errors import PlanningError
from closeup_ns.planning.selection import Method, Objective
from closeup_ns.views.overlap import Discount


@dataclass
class PlannerConfig:
    """How the views of a round are chosen (paper, section 4.3; numbers from section 5.2 and papers.md 6.3)."""

    anchors: int = 5
    """k: known views that summarise what is known, and number of frontier views."""
    updates: int = 8
    """U: to-be-updated views between the anchors and the frontier."""
    candidates: int = 100
    """M: random views from which the to-be-updated ones are chosen."""
    zoom: float = 3.0
    """How much closer each round goes: round t works at d0 / zoom^t from the target."""
    depth_size: int = 128
    """Long side, in pixels, of the depth maps that overlap and free space are measured on."""
    depth_rel: float = 0.05
    """Visibility test: largest depth difference, as a share of the depth."""
    similarity_stride: int = 2
    """Overlap of pairs is counted on every so many rows and columns of the depth maps."""
    coverage_sigma: float = 0.25
    """Spread of the weight on the centre of frontier views, in short sides of the image."""
    objective: Objective = "normalised"
    """Eq. 5 with both terms on one scale, or as printed in the "paper"."""
    redundancy: float = 0.5
    """Lambda: weight of overlap against coverage in the normalised objective."""
    method: Method = "greedy_swap"
    """Deterministic search, or the paper's "random_swap" (Algorithm 1)."""
    eligible_fraction: float = 0.3
    """Views that cover less than this share of what the best one covers are not chosen."""
    discount: Discount = "paper"
    """Appendix C's distance discount; "paper" favours the middle of the bridge."""
    seeds: Literal["fps", "random"] = "fps"
    """First round: anchors' directions by farthest-point sampling, or at "random" as in the paper."""
    seed_separation: float = 2.0
    """Least angle in degrees between two frontier views, seen from the target."""
    direction_jitter: float = 5.0
    """Largest angle in degrees between a candidate and the arc between the two views it was drawn from."""
    orientation_jitter: float = 3.0
    """Largest angle in degrees between a candidate's optical axis and the target."""
    pair_angle: float = 90.0
    """Candidates are drawn between views at most this many degrees apart, seen from the target."""
    attempts: int = 3
    """How many times M candidates are drawn while fewer than U survive."""
    alpha: float = 0.5
    """Least opacity for a rendered depth to count."""
    clearance: float = 0.3
    """A view is inside geometry if it renders depth nearer than this share of its distance to the target ..."""
    clearance_fraction: float = 0.02
    """... on more than this share of its pixels, so that a few stray Gaussians do not close a direction."""
    target_depth_rel: float = 0.25
    """The target is hidden where the rendered depth is smaller than its own by more than this share."""

    def __post_init__(self) -> None:
        if min(self.anchors, self.updates, self.candidates, self.attempts, self.similarity_stride) < 1:
            raise PlanningError("anchors, updates, candidates, attempts and similarity_stride must be at least 1")
        if not self.zoom > 1.0:
            raise PlanningError(f"zoom must be larger than 1 to come closer in every round; it is {self.zoom}")
        if not 0.0 <= self.pair_angle < 180.0:
            raise PlanningError(
                f"pair_angle must be below 180 degrees, where arcs are not unique; it is {self.pair_angle}"
            )
        if self.depth_size < 16:
            raise PlanningError(f"depth_size {self.depth_size} is too small to measure overlap on; use 128")
