"""The pixel of a capture, by cross-validation on photographs that were held out from the start.

How far a pixel blurs is a property of the camera and of what was done to its pictures. Far photographs rank the
kernels in the same order as true close-ups do (quality.md), so no close-up is needed to choose.
"""

from __future__ import annotations

from collections.abc import Callable

from nerfstudio.utils.rich_utils import CONSOLE

from closeup_ns.model.kernel import PixelKernel
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.trials.trial import photograph_psnr, restore_snapshot, run_steps, take_snapshot

CANDIDATES = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Variances in px^2. The search climbs from the model's own and stops where it gets worse."""
SEARCH_AT = 0.3
"""When to search, as a share of the base phase. Early, because held-out photographs are not trained on until then."""
TRIAL_STEPS = 0.04
"""Length of one trial, as a share of the base phase."""
HELD_OUT_EVERY = 8
"""Every n-th photograph is held out for scoring; it is not trained on before the search and is trained on after it."""
MIN_PHOTOGRAPHS = 8
"""With fewer photographs than this none can be spared: no search."""
MIN_GAIN = 0.02
"""The search goes on only to a kernel that is better by this many dB: less is noise."""
TOLERANCE = 0.08
"""Of the kernels within this many dB of the best, the one nearest to the model's own is taken. Far photographs
hardly tell kernels apart, close-ups do: a kernel too narrow leaves the lens in the scene, one too wide rings."""


def held_out_indices(num_photographs: int) -> list[int]:
    """Indices of the photographs that the kernels are scored on; empty where none can be spared."""
    if num_photographs < MIN_PHOTOGRAPHS:
        return []
    return list(range(HELD_OUT_EVERY // 2, num_photographs, HELD_OUT_EVERY))


def search_kernel(run: Run, step: int, trial_steps: int) -> dict[float, float]:
    """Set the photographs' kernel to the best candidate. Returns the score in dB of each kernel tried."""
    model, held_out = run.model, sorted(run.photographs.held_out)
    own, snapshot = model.kernel, take_snapshot(run)
    start = round(own.variance, 4)
    grid = sorted({*CANDIDATES, start})
    scores: dict[float, float] = {}

    def score(position: int) -> float:
        variance = grid[position]
        if variance not in scores:
            model.kernel = PixelKernel.of(variance, own.supersample, model.config.eps2d)
            run_steps(run, step, trial_steps, f"pixel kernel: trying {variance:g} px²")
            scores[variance] = photograph_psnr(run, held_out)
            restore_snapshot(run, snapshot)
        return scores[variance]

    top = climb(grid.index(start), len(grid), score, MIN_GAIN)
    best = grid[nearest(grid.index(start), top, score, TOLERANCE)]
    model.kernel = PixelKernel.of(best, own.supersample, model.config.eps2d)
    table = ", ".join(f"{variance:g}: {scores[variance]:.2f} dB" for variance in sorted(scores))
    CONSOLE.print(f"Pixel kernel: [bold]variance {best:.3f} px²[/bold] (held-out photographs: {table})")
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
