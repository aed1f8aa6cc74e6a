"""The pixel of a capture, by cross-validation on photographs that were held out from the start.

How far a pixel blurs is a property of the camera and of what was done to its pictures. Far photographs rank the
kernels in the same order as true close-ups do (quality.md), so no close-up is needed to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.model.kernel import PixelKernel
from closeup_ns.rounds.trial import photograph_psnr, restore_snapshot, run_steps, take_snapshot

if TYPE_CHECKING:
    from closeup_ns.studio.pipeline import CloseupPipeline


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


def judges(num_photographs: int, config: KernelSearchConfig) -> list[int]:
    """Indices of the photographs that judge; empty where the search is off or none can be spared."""
    if not config.enabled or num_photographs < max(config.min_photographs, 2):
        return []
    return list(range(config.held_out_every // 2, num_photographs, config.held_out_every))


def search_kernel(trainer: Trainer, step: int, config: KernelSearchConfig, trial_steps: int) -> dict[float, float]:
    """Set the model's kernel to the best candidate. Returns the score in dB of each kernel tried."""
    pipeline: CloseupPipeline = trainer.pipeline  # type: ignore[assignment]
    model = pipeline.model
    held_out = sorted(pipeline.datamanager.held_out)
    own = model.kernel
    start = round(own.variance, 4)
    grid = sorted({*config.candidates, start})
    snapshot = take_snapshot(trainer)
    scores: dict[float, float] = {}

    def score(position: int) -> float:
        variance = grid[position]
        if variance not in scores:
            model.kernel = PixelKernel.of(variance, own.supersample, model.config.eps2d)
            run_steps(trainer, step, trial_steps, f"pixel kernel: trying {variance:g} px^2")
            scores[variance] = photograph_psnr(pipeline, held_out)
            restore_snapshot(trainer, snapshot)
        return scores[variance]

    top = climb(grid.index(start), len(grid), score, config.min_gain)
    best = grid[nearest(grid.index(start), top, score, config.tolerance)]
    model.kernel = PixelKernel.of(best, own.supersample, model.config.eps2d)
    table = ", ".join(f"{variance:g}: {scores[variance]:.2f} dB" for variance in sorted(scores))
    CONSOLE.print(f"Pixel kernel of this capture: [bold]{best:g} px^2[/bold] (held-out photographs: {table})")
    return scores


def climb(start: int, size: int, score: Callable[[int], float], min_gain: float) -> int:
    """Hill climbing on positions 0..size-1 of a list: go on in the better direction while it gets better."""
    best = start
    for direction in (-1, 1):
        moved = False
        while 0 <= best + direction < size and score(best + direction) > score(best) + min_gain:
            best += direction
            moved = True
        if moved:
            break
    return best


def nearest(start: int, top: int, score: Callable[[int], float], tolerance: float) -> int:
    """From ``start`` on the way to ``top``, the first position whose score is within ``tolerance`` of the top's."""
    direction = 1 if top >= start else -1
    return next(
        position for position in range(start, top + direction, direction) if score(position) >= score(top) - tolerance
    )
