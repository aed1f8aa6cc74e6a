"""What ns-eval says of held-out photographs at full size: ``close_photo_psnr_3x`` and its companions (issue 11.7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import Metric, MetricOptions
from closeup_ns.metrics.shot import scale_label
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.planning.target import Target
from closeup_ns.progress import track
from closeup_ns.rounds.reporting.held_out import HeldOut, cut_held_out, held_out_rounds, plan_held_out
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import mean_of_numbers

BY_PIXEL = ("psnr", "cc_psnr")
METRICS = (*BY_PIXEL, "ssim", "lpips_vgg")


@torch.no_grad()
def close_photographs(run: Run, targets: Sequence[Target]) -> tuple[dict[str, float], dict]:
    """Means over held-out photographs and their native crops, and what is missing -> why.

    ``close_photo_psnr_3x``: native crops at a scale, from the pose as given; ``close_photo_psnr_registered_3x``: after
    registration to the model, the same for every model; ``close_photo_count_3x``: of so many crops, one of each
    held-out photograph that sees a target. ``photo_psnr_registered``: the photographs as trained on.

    Of what a mask or transparency hides, `BY_PIXEL` see nothing; the others look at neighbourhoods, and are shown the
    render's own pixels there, as if they were right.
    """
    metrics, missing = build_metrics(METRICS, MetricOptions())
    data, zoom = run.photographs, run.settings.schedule.zoom
    indices = track(range(len(data.eval_originals())), "held-out photographs, far")
    groups: dict[str, Iterable[HeldOut]] = {"photo": (HeldOut(0, *data.eval_photograph(index)) for index in indices)}
    for number in held_out_rounds(run):
        planned = [crop for target in targets for crop in plan_held_out(run, number, target.point)]
        groups[f"close_photo {scale_label(zoom**number)}"] = cut_held_out(run, number, planned)
    values: dict[str, list[float]] = {}
    counts: dict[str, float] = {}
    for name, crops in groups.items():
        kind, _, scale = name.partition(" ")
        for crop in crops:
            for how in ("", "_registered"):
                image = (crop.render(run, registered=bool(how)) * 255).round() / 255
                suffix = f"{how}_{scale}" if scale else how
                for metric, value in _scores(metrics, image, crop).items():
                    values.setdefault(f"{kind}_{metric}{suffix}", []).append(value)
        if scale:
            counts[f"{kind}_count_{scale}"] = float(len(values.get(f"{kind}_psnr_{scale}", ())))
    return counts | {name: mean_of_numbers(found) for name, found in values.items()}, missing


def _scores(metrics: Sequence[Metric], image: Float[Tensor, "H W 3"], crop: HeldOut) -> dict[str, float]:
    """Each metric of a render, none where nothing of the photograph counts; see `close_photographs`."""
    if crop.counted is None:
        return {metric.name: metric(image, crop.image) for metric in metrics}
    if not crop.counted.any():
        return {}
    alone = image[crop.counted][:, None], crop.image[crop.counted][:, None]  # [N, 1, 3]
    whole = image, torch.where(crop.counted[..., None], crop.image, image)
    return {metric.name: metric(*(alone if metric.name in BY_PIXEL else whole)) for metric in metrics}
