"""Experiments that no training made: figures as a test wants them, written as a bench writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closeup_ns.bench.experiment import ExperimentResult, State
from closeup_ns.metrics.metric import Provenance
from closeup_ns.metrics.scores import Row, Scores, write_scores

HIGHER = {"psnr": True, "ssim": True, "lpips_vgg": False, "lpips_alex": False, "dino": True, "metaiqa": True}

Images = Mapping[str, tuple[float, Mapping[str, float]]]
"""Name -> scale, metric -> value."""


def made_up_result(
    out: Path,
    method: str,
    images: Images | None = None,
    scene: str = "flower",
    seed: int = 0,
    *,
    protocol: str = "demo",
    label: str = "",
    state: State = "done",
    error: str = "",
    missing: Mapping[str, str] | None = None,
    implementation: str = "ours",
    steps: int = 100,
    seconds: Mapping[str, float] | None = None,
    **about: Any,
) -> ExperimentResult:
    """An experiment, with scores where it is done."""
    folder = out / "experiments" / protocol / scene / f"{method}-seed{seed}"
    experiment = ExperimentResult(
        protocol, scene, method, label or method, seed, state, folder, error, dict(seconds or {}), steps=steps
    )
    experiment.write()
    if images is not None:
        rows = [Row(name, scale, dict(values)) for name, (scale, values) in images.items()]
        names = sorted({name for row in rows for name in row.values})
        metrics = {name: Provenance(implementation) for name in names}
        higher = {name: HIGHER.get(name, True) for name in names}
        write_scores(Scores(rows, metrics, dict(missing or {}), higher, {"commit": "abc1234", **about}), folder)
    return experiment
