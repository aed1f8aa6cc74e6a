"""The pixel of a capture, by cross-validation on photographs that were held out from the start.

How far a pixel blurs is a property of the camera and of what was done to its pictures. Far photographs rank the
kernels in the same order as true close-ups do (quality.md), so no close-up is needed to choose.
"""

from __future__ import annotations

from collections.abc import Callable

from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.model.kernel import PixelKernel
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.settings import KernelSearchConfig
from closeup_ns.rounds.trials.trial import photograph_psnr, restore_snapshot, run_steps, take_snapshot


def judges(num_photographs: int, config: KernelSearchConfig) -> list[int]:
    """Indices of the photographs that judge; empty where the search is off or none can be spared."""
    if not config.enabled or num_photographs < max(config.min_photographs, 2):
        return []
    return list(range(config.held_out_every // 2, num_photographs, config.held_out_every))


def search_kernel(run: Run, step: int, config: KernelSearchConfig, trial_steps: int) -> dict[float, float]:
    """Set the photographs' kernel to the best candidate. Returns the score in dB of each kernel tried."""
    model, held_out = run.model, sorted(run.photographs.held_out)
    own, snapshot = model.kernel, take_snapshot(run)
    start = round(own.variance, 4)
    grid = sorted({*config.candidates, start})
    scores: dict[float, float] = {}

    def score(position: int) -> float:
        variance = grid[position]
        if variance not in scores:
            model.kernel = PixelKernel.of(variance, own.supersample, model.config.eps2d)
            run_steps(run, step, trial_steps, f"pixel kernel: trying {variance:g} px^2")
            scores[variance] = photograph_psnr(run, held_out)
            restore_snapshot(run, snapshot)
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
