"""ns-eval's metrics of a run as scores: held-out photographs, and crops of their originals around the target."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from closeup_ns.metrics.metric import Provenance
from closeup_ns.metrics.scores import Row, Scores

_KEY = re.compile(
    r"close_photo_(?!count)(?P<metric>\w+)_(?P<scale>\d+)x|photo_(?P<far>cc_psnr|\w+_registered)|(?P<own>psnr|ssim)"
)
"""``photo_psnr_registered`` is ours, of far views; ``psnr`` and ``ssim`` are nerfstudio's, for methods of any kind."""


def held_out_scores(config: Path, image_side: int, about: dict[str, Any]) -> Scores:
    """Evaluate a run as ns-eval does, at the size of the protocol's photographs whatever the run trained on.

    Args:
        config: config.yml of the run.
        image_side: longest side in pixels of the held-out photographs, and of the crops at most; 0: as trained on.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    from closeup_ns.model.lazy_lpips import lazy_lpips
    from closeup_ns.studio.compatibility import allow_nerfstudio_checkpoints

    def sized(found: Any) -> Any:
        if image_side:
            found.pipeline.datamanager.dataparser.max_image_size = image_side
        return found

    allow_nerfstudio_checkpoints()
    with lazy_lpips():
        pipeline: Any = eval_setup(config, test_mode="test", update_config_callback=sized)[1]
        return scores_of(pipeline.get_average_eval_image_metrics(), about)


def scores_of(results: dict[str, Any], about: dict[str, Any]) -> Scores:
    """ns-eval's keys as rows: far views, and what ``close_photo_NAME_3x`` says at each scale."""
    values: dict[float, dict[str, float]] = {}
    for key, value in results.items():
        match = _KEY.fullmatch(key)
        if match and isinstance(value, (int, float)) and math.isfinite(value):
            metric = match["metric"] or match["far"] or match["own"]
            values.setdefault(float(match["scale"] or 1), {})[metric] = float(value)
    rows = [
        Row("held-out photographs" if scale == 1 else f"their originals at {scale:g}x", scale, values[scale])
        for scale in sorted(values)
    ]
    names = sorted({name for row in rows for name in row.values})
    missing = results.get("missing")
    return Scores(
        rows,
        {name: Provenance("ns-eval") for name in names},
        {str(name): str(reason) for name, reason in missing.items()} if isinstance(missing, dict) else {},
        {name: not name.startswith("lpips") for name in names},
        about,
    )
