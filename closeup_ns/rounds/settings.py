"""The settings of the rounds: what `--pipeline.*` adds to nerfstudio's own pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from closeup_ns.planning.plan import PlannerConfig
from closeup_ns.planning.targets import TargetConfig
from closeup_ns.refine.refiner import RefinerConfig
from closeup_ns.rounds.schedule import ScheduleConfig


@dataclass
class KernelSearchConfig:
    """The pixel of the photographs."""

    enabled: bool = True
    """Measure the pixel on originals, or, where there are none, choose it by trials. Off: ``model.pixel_variance``."""


@dataclass
class OriginalsConfig:
    """Native views: crops of the originals around the target, trained on as photographs."""

    enabled: bool = True
    """Train rounds on what the originals show of the target. Keep the originals beside the small images for it."""
    share: float = 0.6
    """Share of a round's steps that train on a native view; the others keep the far views as they are."""
    refine_poses: bool = True
    """Register each native view against the model when a round begins, good to a native pixel."""
    own_kernel: bool = True
    """Render a round's native views with the pixel of their own scale; off uses the photographs'."""
    own_budget: bool = True
    """Let a round with native views add Gaussians beyond ``pipeline.model.max-gaussians``."""
    growth: float = 1.7
    """By how much such a round may multiply the number of Gaussians."""


@dataclass
class FineTuneConfig:
    """How a round is trained."""

    generated_weight: float = 0.3
    """Weight of pixels that a generator made. Views that contradict each other a little train worse at 1 (-0.3 dB)."""
    sparse_weight: float = 0.0
    """Weight of the reliable pixels' own L1 term; above 0 their real colours are also laid into the refined image. The
    photographs that they come from are trained on anyway; carried into a close-up they are off by what the geometry is
    off, and cost 0.2 to 1.6 dB (docs/quality.md). The paper's Table 3 has them, so they can be had."""
    densify: bool = True
    """Densify from close views, where a generator added detail to fit. Without one it hurt in every run."""


@dataclass
class AcceptanceConfig:
    """When a round is kept."""

    enabled: bool = True
    """Judge rounds by a trial; off keeps every round."""


@dataclass
class RoundSettings:
    """Base phase, then progressive rounds."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How long each phase lasts."""
    kernel_search: KernelSearchConfig = field(default_factory=KernelSearchConfig)
    """How the pixel kernels of the capture are chosen."""
    target: TargetConfig = field(default_factory=TargetConfig)
    """What the camera will come close to."""
    originals: OriginalsConfig = field(default_factory=OriginalsConfig)
    """Native views: what the photographs show of the target at full size."""
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """Which views a round uses (4.3.1, 4.3.2)."""
    frontier_cameras: Path | None = None
    """List of cameras, in the capture's frame, to take as the first round's frontier: transforms.json, whose frames
    need no images. Not set: the planner finds its own."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    """What makes a rendered view better (4.2)."""
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    """How a round is trained (4.3.4)."""
    acceptance: AcceptanceConfig = field(default_factory=AcceptanceConfig)
    """Whether a round is kept."""
    seed: int = 0
    """Seed of the rounds: same seed, same machine, same plan."""
