"""All metrics by name, and scoring many images with several of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from closeup_ns.errors import DataError
from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, MetricUnavailable
from closeup_ns.metrics.scores import Row, Scores
from closeup_ns.metrics.shot import Shot

METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        MetricSpec("psnr", "truth", True, "closeup_ns.metrics.full_reference:function_metric"),
        MetricSpec("psnr_masked", "counted", True, "closeup_ns.metrics.full_reference:function_metric"),
        MetricSpec("ssim", "truth", True, "closeup_ns.metrics.full_reference:function_metric"),
        MetricSpec("cc_psnr", "truth", True, "closeup_ns.metrics.full_reference:function_metric"),
        MetricSpec("sharpness", "truth", True, "closeup_ns.metrics.full_reference:function_metric"),
        MetricSpec("lpips_vgg", "truth", False, "closeup_ns.metrics.lpips:lpips_metric"),
        MetricSpec("lpips_alex", "truth", False, "closeup_ns.metrics.lpips:lpips_metric"),
        MetricSpec("dino", "reference", True, "closeup_ns.metrics.dino:dino_metric"),
        MetricSpec("metaiqa", "nothing", True, "closeup_ns.metrics.metaiqa:metaiqa_metric"),
        MetricSpec("musiq", "nothing", True, "closeup_ns.metrics.no_reference:pyiqa_metric"),
        MetricSpec("clipiqa+", "nothing", True, "closeup_ns.metrics.no_reference:pyiqa_metric"),
        MetricSpec("niqe", "nothing", False, "closeup_ns.metrics.no_reference:pyiqa_metric"),
    )
}
"""Every metric by name. Others of pyiqa are reached as ``pyiqa:NAME``."""
DEFAULT_METRICS = (
    "psnr", "psnr_masked", "ssim", "cc_psnr", "sharpness", "lpips_vgg", "lpips_alex", "dino", "metaiqa",
)  # fmt: skip
"""The paper's, with both LPIPS backbones (papers use VGG, nerfstudio AlexNet), and PSNR on what masks let count."""


def build_metrics(names: Sequence[str], options: MetricOptions) -> tuple[list[Metric], dict[str, str]]:
    """The metrics that can run here, and those that cannot -> why. DataError where a name is unknown."""
    built, missing = [], {}
    for name in names:
        spec = _spec(name)
        module, function = spec.build.split(":")
        try:
            built.append(getattr(importlib.import_module(module), function)(spec, options))
        except MetricUnavailable as reason:
            missing[name] = str(reason)
    return built, missing


def _spec(name: str) -> MetricSpec:
    if name in METRICS:
        return METRICS[name]
    if name.startswith("pyiqa:"):
        return MetricSpec(name, "nothing", True, "closeup_ns.metrics.no_reference:pyiqa_metric")
    raise DataError(f"there is no metric {name!r}; there are {', '.join(METRICS)}, and pyiqa:NAME for pyiqa's others")


def score(
    shots: Iterable[Shot],
    metrics: Sequence[Metric],
    missing: dict[str, str] | None = None,
    about: dict[str, Any] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Scores:
    """Score every shot with every metric that applies to it; ``advance`` is called after each.

    A metric that applies to no shot (a full-reference one where no camera has a photograph) moves to ``missing``; not
    one of masked pixels where there is no mask, which `psnr` says.
    DataError where a shot's picture and truth differ in size, or two shots have one name.
    """
    rows: list[Row] = []
    for shot in shots:
        if any(row.image == shot.name for row in rows):
            raise DataError(f"two images are called {shot.name}")
        rows.append(Row(shot.name, float(shot.scale), _values(shot, metrics), shot.reference_name))
        advance()
    used = {name for row in rows for name in row.values}
    absent = {
        metric.name: _why_absent(metric) for metric in metrics if metric.name not in used and metric.needs != "counted"
    }
    present = [metric for metric in metrics if metric.name in used]
    return Scores(
        rows=rows,
        metrics={metric.name: metric.provenance for metric in present},
        missing={**(missing or {}), **absent},
        higher_is_better={metric.name: metric.higher_is_better for metric in present},
        about=about or {},
    )


def _values(shot: Shot, metrics: Sequence[Metric]) -> dict[str, float]:
    if shot.truth is not None and shot.truth.shape != shot.picture.shape:
        (h, w), (height, width) = shot.picture.shape[:2], shot.truth.shape[:2]
        raise DataError(f"the render of {shot.name} is {w}x{h} pixels, its photograph {width}x{height}")
    image = as_float(shot.picture)
    pairs: dict[str, tuple[Tensor, Tensor | None]] = {"nothing": (image, None)}
    if shot.truth is not None:
        pairs["truth"] = image, as_float(shot.truth)
        if shot.counted is not None and shot.counted.any():
            pairs["counted"] = image[shot.counted], as_float(shot.truth)[shot.counted]
    if shot.reference is not None:
        pairs["reference"] = image, as_float(shot.reference)
    with torch.no_grad():
        return {m.name: float(m(*pairs[m.needs])) for m in metrics if m.needs in pairs}


def _why_absent(metric: Metric) -> str:
    lacks = {"truth": "no camera has a photograph of its own", "reference": "no training photograph is known"}
    return lacks.get(metric.needs, "there are no images")


def as_float(picture: UInt8[Tensor, "H W 3"]) -> Float[Tensor, "H W 3"]:
    """Colours of 0 to 255 as float32 in [0, 1]."""
    return picture.float() / 255
