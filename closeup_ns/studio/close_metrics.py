"""Close-up metrics of a run that has no photographs of its close-ups: what ns-eval adds to nerfstudio's own keys.

The cameras are training views moved closer to the target and turned a little around it, so that they are none of the
poses that a round trained on (papers.md 6.3, point 6). Keys end in the scale: ``close_reliable_psnr_9x``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.errors import PlanningError
from closeup_ns.metrics.metric import Metric, MetricOptions
from closeup_ns.metrics.reference import choose_reference
from closeup_ns.metrics.shot import scale_label
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.planning.targets import resolve_targets
from closeup_ns.progress import track
from closeup_ns.refine.judging.footprint import as_photographed
from closeup_ns.rounds.known import observations
from closeup_ns.rounds.run import Run
from closeup_ns.studio.close_photographs import close_photographs
from closeup_ns.views.psnr import psnr
from closeup_ns.views.reliability import Observation, reliable_pixels
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.rotation import rotation
from closeup_ns.views.view import View, aim_at, move_closer
from closeup_ns.views.warp import most_central

_FEWEST_PIXELS = 32
"""Reliable pixels that a PSNR needs."""
VIEWS = 5
"""Close-ups at each scale (the paper: 5)."""
TURN = 8.0
"""Largest angle in degrees, seen from the target, between a close-up and the training view it comes from."""
METRICS = ("dino", "metaiqa")
"""Metrics that need no photograph of the close-up; those whose weights are not here are named and left out."""


@torch.no_grad()
def close_metrics(run: Run) -> tuple[dict[str, float], dict[str, str]]:
    """Means per scale and over all close-ups, and what is missing -> why.

    ``close_reliable_psnr``: the render, seen as the photographs see it, against their colours, on pixels where they
    agree on geometry and colour.
    ``close_reliable_share``: the share of such pixels. Then `METRICS`.
    """
    schedule = run.settings.schedule
    scales = [schedule.zoom**number for number in range(1, schedule.rounds + 1)]
    views = run.photographs.train_views()
    names = run.photographs.photograph_names()
    targets = resolve_targets(run.settings.target, names, views, run.model.render_view)
    real, absent = close_photographs(run, targets)
    metrics, missing = build_metrics(METRICS, MetricOptions())
    generator = torch.Generator().manual_seed(run.settings.seed)
    values: dict[str, list[float]] = {}
    close_ups = [(scale, view) for scale in scales for view in turned_views(views, targets[0].point, scale, generator)]
    wanted = [view for _, view in close_ups]  # none in a run without rounds
    photographs = list(observations(run, wanted, targets[0].point).values()) if wanted else []
    for scale, view in track(close_ups, "close-ups"):
        rendered = run.model.render_view(view.to(run.device, torch.float32))
        for name, value in _score(run, view, rendered, photographs, metrics).items():
            for suffix in ("", f"_{scale_label(scale)}"):
                values.setdefault(f"close_{name}{suffix}", []).append(value)
    missing |= {m.name: "no photograph sees the close-ups" for m in metrics if f"close_{m.name}" not in values}
    return {**real, **{name: math.fsum(found) / len(found) for name, found in values.items()}}, {**absent, **missing}


def turned_views(
    views: Sequence[View],
    target: Float[Tensor, "3"],
    scale: float,
    generator: torch.Generator,
) -> list[View]:
    """Views moved ``scale`` times closer, turned around the target by up to `TURN` degrees, aimed at it.

    Raises:
        PlanningError: no view has the target in its image.
    """
    candidates, target = most_central(views, target), target.to(views[0].c2w)
    if not candidates:
        raise PlanningError("no photograph has the target in it, so no close-up can be judged: give another target")
    turned = []
    for index in candidates[:VIEWS]:
        closer = move_closer(views[index], target, scale)
        axis = torch.randn(3, generator=generator, dtype=torch.float64)
        angle = math.radians(TURN) * float(torch.rand((), generator=generator))
        turn = rotation(angle * axis / axis.norm()).to(closer.c2w)
        c2w = closer.c2w.clone()
        c2w[:3, :3] = turn @ closer.c2w[:3, :3]
        c2w[:3, 3] = target + turn @ (closer.position - target)
        turned.append(aim_at(View(closer.K, c2w, closer.width, closer.height), target))
    return turned


def _score(
    run: Run,
    view: View,
    rendered: Rendered,
    photographs: Sequence[Observation],
    metrics: Sequence[Metric],
) -> dict[str, float]:
    mask = reliable_pixels(view, rendered.depth, rendered.alpha, photographs)
    values = {"reliable_share": float(mask.sparse.float().mean())}
    if int(mask.sparse.sum()) >= _FEWEST_PIXELS:
        seen = as_photographed(rendered.color.permute(2, 0, 1), mask.footprint)
        values["reliable_psnr"] = psnr(seen.permute(1, 2, 0), mask.color.permute(1, 2, 0), mask.sparse)
    depth = rendered.depth * (rendered.alpha > 0.5)
    found = choose_reference(view, depth, [p.view for p in photographs], [p.depth for p in photographs])
    image = (rendered.color.clamp(0, 1) * 255).round() / 255
    for metric in metrics:
        if metric.needs == "nothing":
            values[metric.name] = metric(image, None)
        elif metric.needs == "reference" and found is not None:
            values[metric.name] = metric(image, photographs[found].color.permute(1, 2, 0))
    return values


def say_missing(missing: dict[str, Any]) -> None:
    """One line for each metric that could not be computed."""
    for name, reason in sorted(missing.items()):
        CONSOLE.print(f"metric {name} is missing: {reason}", style="yellow", markup=False, soft_wrap=True)


def finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None for numbers that JSON does not have: the deviation of one image, a metric without weights."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
