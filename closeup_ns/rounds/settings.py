"""The settings of the rounds: what `--pipeline.*` adds to nerfstudio's own pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from closeup_ns.planning.plan import PlannerConfig
from closeup_ns.planning.targets import TargetConfig
from closeup_ns.refine.judging.gate import GateConfig
from closeup_ns.refine.refiner import RefinerConfig
from closeup_ns.rounds.schedule import ScheduleConfig
from closeup_ns.views.reliability import ReliabilityConfig


@dataclass
class KernelSearchConfig:
    """Cross-validation of the screen-space kernel."""

    enabled: bool = True
    """Choose the kernel by trials; off keeps ``model.pixel_variance``."""
    candidates: tuple[float, ...] = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
    """Variances in px^2. The search climbs from the model's own and stops where it gets worse."""
    at: float = 0.3
    """When to search, as a share of the base phase. Early, because the judges are not trained on until then."""
    trial_steps: float = 0.04
    """Length of one trial, as a share of the base phase."""
    held_out_every: int = 8
    """Every n-th photograph judges the kernels; it is not trained on before the search and is trained on after it."""
    min_photographs: int = 8
    """With fewer photographs than this none can be spared: no search."""
    min_gain: float = 0.02
    """The search goes on only to a kernel that is better by this many dB: less is noise."""
    tolerance: float = 0.08
    """Of the kernels within this many dB of the best, the one nearest to the model's own is taken. Far photographs
    hardly tell kernels apart, close-ups do: a kernel too narrow leaves the lens in the scene, one too wide rings."""


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

    probability: float = 0.5
    """Share of a round's steps that train on an injected view; the others train on photographs."""
    current_share: float = 0.7
    """Of those, the share for the round's own views rather than earlier rounds'."""
    refine_frontier: bool = True
    """Refine and train on the frontier views too (Fig. 2c), not only on the to-be-updated views."""
    real_weight: float = 1.0
    """Weight of pixels whose colour comes from photographs."""
    generated_weight: float = 0.3
    """Weight of pixels that a generator made. Views that contradict each other a little train worse at 1 (-0.3 dB)."""
    sparse_weight: float = 0.0
    """Weight of the reliable pixels' own L1 term; above 0 their real colours are also laid into the refined image. The
    photographs that they come from are trained on anyway; carried into a close-up they are off by what the geometry is
    off, and cost 0.2 to 1.6 dB (docs/quality.md). The paper's Table 3 has them, so they can be had."""
    ssim_weight: float = 0.2
    """Weight of the structural term, where a generator added detail. Without one there is nothing to fit but noise."""
    densify: bool = True
    """Densify from close views, where a generator added detail to fit. Without one it hurt in every run."""
    densify_within: float = 1 / 3
    """Only views at most this share of the original distance from the target densify."""
    growth: float = 1.5
    """A round whose views densify may multiply the number of Gaussians by at most this, whatever
    ``pipeline.model.max-gaussians`` allowed the base phase."""


@dataclass
class AcceptanceConfig:
    """When a round is kept."""

    enabled: bool = True
    """Judge rounds by a trial; off keeps every round."""
    trial_share: float = 0.2
    """Length of each of the two arms, as a share of the round's steps."""
    photographs: float = 0.125
    """Share of the photographs that is held out to judge: half of them the closest to the target, half spread out."""
    min_gain: float = 0.05
    """A round must be better than its control by this many dB on the held-out photographs. Less is noise: a round kept
    for 0.022 dB lost 0.19 dB on flower's test photographs."""
    generated_tolerance: float = 2.0
    """A refiner that invents detail may cost this many dB on them in the short trial: far photographs cannot show its
    detail. A plausible generator lost 0.8 to 1.2 dB in the first round's trial of 50 steps; 0.4 were left at the end of
    a run that gained 2 dB at 27x (docs/quality.md)."""
    native_tolerance: float = 0.5
    """A round with native views may cost this many dB on the held-out far photographs in the short trial, where it
    gains on their native crops: at the end of the run 0.1 of them are left (docs/quality.md)."""
    max_reliable_loss: float = 0.1
    """A round may lose this many dB on the reliable pixels that were set aside."""
    generated_reliable_loss: float = 3.0
    """The same for a refiner that invents detail, as the gate's ``max_psnr_drop``: even the truth lost 1.2 dB."""


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
    reliability: ReliabilityConfig = field(default_factory=ReliabilityConfig)
    """Which pixels are known from real photographs (4.2)."""
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    """What makes a rendered view better (4.2)."""
    gate: GateConfig = field(default_factory=GateConfig)
    """Which refined views are used."""
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    """How a round is trained (4.3.4)."""
    acceptance: AcceptanceConfig = field(default_factory=AcceptanceConfig)
    """Whether a round is kept."""
    seed: int = 0
    """Seed of the rounds: same seed, same machine, same plan."""
