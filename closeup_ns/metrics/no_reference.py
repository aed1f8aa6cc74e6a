"""No-reference metrics by way of pyiqa: MUSIQ, CLIP-IQA+, NIQE and whatever else it has.

pyiqa is an extra and its licence is non-commercial (PolyForm Noncommercial since 0.1.16): evaluation only. It downloads
weights while it builds a metric; where that is not allowed the metric is missing, with the file that it wanted.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, MetricUnavailable, Provenance
from closeup_ns.metrics.weights import named_file, sha256_of

INSTALL = "pip install 'closeup-ns[metrics]' && pip install --no-deps 'pyiqa>=0.1.16' 'timm>=1.0'"
"""pyiqa wants a newer timm than nerfstudio's metadata allows, though nerfstudio never imports timm."""


def pyiqa_metric(spec: MetricSpec, options: MetricOptions) -> Metric:
    """A metric of pyiqa by its name (``pyiqa:`` before it or not).

    MetricUnavailable where pyiqa is not installed, has no such metric without a reference, or lacks its weights.
    """
    wanted = spec.name.removeprefix("pyiqa:")
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]
        from pyiqa.default_model_configs import DEFAULT_CONFIGS  # pyright: ignore[reportMissingImports]
    except ImportError as problem:
        raise MetricUnavailable(f"pyiqa is not installed ({problem}): {INSTALL}") from problem
    if DEFAULT_CONFIGS.get(wanted, {}).get("metric_mode") != "NR":
        raise MetricUnavailable(f"pyiqa {pyiqa.__version__} has no no-reference metric {wanted!r}")
    local = named_file(spec, options)
    given: dict[str, Any] = {} if local is None else {"pretrained_model_path": str(local)}
    read: list[Path] = []
    try:
        with _watched(read, options.allow_download):
            model = pyiqa.create_metric(wanted, device=options.device, **given)
    except Exception as problem:  # any of a hundred models, each with its own ways to fail
        reason = " ".join(str(problem).split())[:300]
        raise MetricUnavailable(f"pyiqa cannot build {wanted} ({type(problem).__name__}: {reason})") from problem
    files = [path for path in read if path.is_file()]
    provenance = Provenance(
        f"pyiqa {pyiqa.__version__} {wanted}",
        weights=", ".join(path.name for path in files),
        sha256=", ".join(sha256_of(path) for path in files),
        notes=f"range {model.score_range or 'unknown'}; rewards sharpness, aliasing and noise too: read it beside DINO",
    )

    def quality(image: Float[Tensor, "H W 3"]) -> float:
        return float(model(image.permute(2, 0, 1)[None].float().clamp(0, 1)))

    return Metric(spec.name, "nothing", not model.lower_better, provenance, quality)


@contextmanager
def _watched(read: list[Path], allow_download: bool) -> Iterator[None]:
    """Note which weights files are read; unless downloads are allowed, let none happen."""
    import pyiqa.utils.download_util as downloads  # pyright: ignore[reportMissingImports]

    load = torch.load

    def noting_load(source: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(source, (str, Path)) and Path(source) not in read:
            read.append(Path(source))
        return load(source, *arguments, **options)

    def refuse(url: Any, *arguments: Any, **options: Any) -> Any:
        raise OSError(f"{getattr(url, 'full_url', url)} is not cached; allow the download")

    with ExitStack() as patched:
        patched.enter_context(mock.patch.object(torch, "load", noting_load))
        if not allow_download:
            patched.enter_context(mock.patch.object(downloads, "download_url_to_file", refuse))
            patched.enter_context(mock.patch.object(urllib.request, "urlopen", refuse))
        yield
