"""How cost grows: exponents fitted to measured times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks._scene import Case


@dataclass(frozen=True)
class Growth:
    """One fitted power law: cost ~ size^exponent while the other size stays."""

    what: str
    """``Gaussians`` or ``pixels``."""
    fixed: str
    """What did not change."""
    exponent: float
    points: int

    def __str__(self) -> str:
        return f"{self.what}^{self.exponent:.2f} ({self.fixed}, {self.points} sizes)"


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent p of cost = c size^p by least squares on the logarithms.

    ValueError where fewer than two different sizes are given, or a size or a cost is not positive.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2 or min(*sizes, *costs) <= 0:
        raise ValueError(f"no exponent fits sizes {list(sizes)} and costs {list(costs)}: two positive pairs are needed")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / spread


def growth(costs: Mapping[Case, float]) -> list[Growth]:
    """Fits over every image size, and over every number of Gaussians, that has at least three cases."""
    by_side: dict[int, list[Case]] = defaultdict(list)
    by_count: dict[int, list[Case]] = defaultdict(list)
    for case in sorted(costs):
        by_side[case.side].append(case)
        by_count[case.count].append(case)
    fits = []
    for side, cases in sorted(by_side.items()):
        if len(cases) >= 3:
            exponent = fit_exponent([case.count for case in cases], [costs[case] for case in cases])
            fits.append(Growth("Gaussians", f"{side}x{side} pixels", exponent, len(cases)))
    for count, cases in sorted(by_count.items()):
        if len(cases) >= 3:
            exponent = fit_exponent([case.side**2 for case in cases], [costs[case] for case in cases])
            fits.append(Growth("pixels", f"{count:,} Gaussians", exponent, len(cases)))
    return fits
