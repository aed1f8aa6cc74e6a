"""What ns-eval says of held-out photographs at full size: ``close_photo_psnr_3x`` and its companions (issue 11.7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from closeup_ns.metrics.metric import MetricOptions
from closeup_ns.metrics.shot import scale_label
from closeup_ns.metrics.suite import build_metrics
from closeup_ns.planning.target import Target
from closeup_ns.progress import track
from closeup_ns.rounds.reporting.held_out import HeldOut, held_out_crops, held_out_rounds
from closeup_ns.rounds.run import Run
from closeup_ns.views.psnr import psnr

METRICS = ("psnr", "cc_psnr", "ssim", "lpips_vgg")


@torch.no_grad()
def close_photographs(run: Run, targets: Sequence[Target]) -> tuple[dict[str, float], dict]:
    """Means over held-out photographs and their native crops, and what is missing -> why.

    ``close_photo_psnr_3x``: native crops at a scale, from the pose as given; ``close_photo_psnr_registered_3x``: after
    registration to the model, the same for every model; ``close_photo_count_3x``: of so many crops, one of each
    held-out photograph that sees a target. ``photo_psnr_registered``: the photographs as trained on.
    """
    metrics, missing = build_metrics(METRICS, MetricOptions())
    zoom = run.settings.schedule.zoom
    far = [HeldOut(0, *photograph) for photograph in run.photographs.eval_photographs()]
    groups = {"photo": far}
    for number in held_out_rounds(run):
        crops = [crop for target in targets for crop in held_out_crops(run, number, target.point)]
        groups[f"close_photo {scale_label(zoom**number)}"] = crops
    values: dict[str, list[float]] = {}
    counts: dict[str, float] = {}
    for name, crops in groups.items():
        kind, _, scale = name.partition(" ")
        if scale:
            counts[f"{kind}_count_{scale}"] = float(len(crops))
        for crop in track(crops, f"held-out photographs, {scale or 'far'}"):
            for how in ("", "_registered"):
                image = (crop.render(run, registered=bool(how)) * 255).round() / 255
                suffix = f"{how}_{scale}" if scale else how
                found = {metric.name: metric(image, crop.image) for metric in metrics}
                found["psnr"] = psnr(image, crop.image, crop.counted)
                for metric, value in found.items():
                    values.setdefault(f"{kind}_{metric}{suffix}", []).append(value)
    return counts | {name: sum(found) / len(found) for name, found in values.items()}, missing
