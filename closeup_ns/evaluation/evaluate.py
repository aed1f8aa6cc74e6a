"""Scores of pictures on disk, against the photograph of the same camera or, without one, a reference photograph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.data.eval_cameras import EvalCamera
from closeup_ns.errors import DataError
from closeup_ns.evaluation.pictures import find_renders, read_picture
from closeup_ns.metrics.metric import MetricOptions
from closeup_ns.metrics.reference import choose_reference, plane_depth
from closeup_ns.metrics.scores import Scores
from closeup_ns.metrics.shot import Shot
from closeup_ns.metrics.suite import DEFAULT_METRICS, build_metrics, score
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View

DEPTH_SIDE = 96
"""Long side, pixels, of the depth maps that references are chosen with."""


@dataclass
class EvaluationConfig:
    """Which metrics are computed, and their options."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Names of metrics; ``pyiqa:NAME`` reaches any no-reference metric of pyiqa."""
    options: MetricOptions = field(default_factory=MetricOptions)
    """Weights, backbones, downloads."""


References = Mapping[str, Path]
"""The reference photograph of each close-up, by camera name; a camera that no photograph sees is absent."""


def references_by_depth(
    cameras: Sequence[EvalCamera], photographs: Sequence[tuple[View, Path]], render: Renderer
) -> References:
    """Choose references with a model's own depth, occlusion included. All views in one frame."""
    depths = [_depth(render, view) for view, _ in photographs]
    return _references(cameras, photographs, lambda view: _depth(render, view), depths)


def references_by_point(
    cameras: Sequence[EvalCamera], photographs: Sequence[tuple[View, Path]], point: Float[Tensor, "3"]
) -> References:
    """Choose references without any model: every close-up is taken to show a plane through ``point``."""
    return _references(cameras, photographs, lambda view: plane_depth(view, point), None)


def _references(
    cameras: Sequence[EvalCamera],
    photographs: Sequence[tuple[View, Path]],
    depth_of: Callable[[View], Tensor],
    photograph_depths: Sequence[Tensor] | None,
) -> References:
    views, chosen = [view for view, _ in photographs], {}
    for camera in cameras:
        small = camera.view.resized(DEPTH_SIDE)
        found = choose_reference(small, depth_of(small), views, photograph_depths)
        if found is not None:
            chosen[camera.name] = photographs[found][1]
    return chosen


def make_shots(cameras: Sequence[EvalCamera], renders: Mapping[str, Path], references: References) -> Iterator[Shot]:
    """One shot after the other, pictures read as they are needed. DataError where one cannot be read."""
    cached: dict[Path, Tensor] = {}
    for camera in cameras:
        picture = read_picture(renders[camera.name])
        truth = None if camera.truth is None else read_picture(camera.truth)
        counted = None if camera.mask is None else read_picture(camera.mask)[..., 0] > 0
        path = references.get(camera.name)
        if path is None:
            yield Shot(camera.name, camera.scale, picture, truth, counted)
            continue
        if path not in cached:
            cached[path] = read_picture(path)
        yield Shot(camera.name, camera.scale, picture, truth, counted, cached[path], path.name)


def evaluate(
    cameras: Sequence[EvalCamera],
    folder: Path,
    config: EvaluationConfig,
    references: References | None = None,
    about: dict[str, Any] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Scores:
    """Score the renders in ``folder``, one per camera; ``advance`` is called after each.

    DataError where renders are missing or of another size, a photograph cannot be read, or nothing can be computed.
    """
    renders = find_renders(cameras, folder)
    metrics, missing = build_metrics(config.metrics, config.options)
    scores = score(make_shots(cameras, renders, references or {}), metrics, missing, about, advance)
    if not scores.metrics:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scores.missing.items())
        raise DataError(f"none of the metrics could be computed for {folder}: {reasons}")
    return scores


@torch.no_grad()
def _depth(render: Renderer, view: View) -> Float[Tensor, "h w"]:
    rendered = render(view.resized(DEPTH_SIDE))
    return (rendered.depth * (rendered.alpha > 0.5)).double().cpu()
