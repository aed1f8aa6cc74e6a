"""The paper's DINO score: how alike a close-up and the photograph with most coverage of it look to DINO (section 5.1).

The paper names neither backbone nor token nor resolution, so the figures of other implementations do not compare. Ours:
DINOv2 ViT-B/14, the CLS token after the last layer norm, cosine in [-1, 1], the image's short side antialiased to 256
pixels and its centre of 224 taken, as DINO's own evaluations do. The backbone stands beside every figure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch.nn.functional as F
import torchvision.transforms.functional as transforms
from jaxtyping import Float
from torch import Tensor

from closeup_ns.metrics.metric import Metric, MetricOptions, MetricSpec, MetricUnavailable, Provenance
from closeup_ns.metrics.weights import sha256_of

SHORT_SIDE, CROP = 256, 224
"""Pixels."""
BACKBONE = "facebook/dinov2-base"
"""Hub id."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet's colours."""
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class DinoScore:
    """Cosine of two images' encodings; 1 for identical images.

    ``encoder`` turns a picture [1, 3, S, S] that `prepare` has normalised into a vector [1, D].
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], device: str = "cpu") -> None:
        self._encoder, self._device = encoder, device
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, image: Float[Tensor, "H W 3"], against: Float[Tensor, "h w 3"]) -> float:
        if self._last is None or self._last[0] is not against:
            self._last = (against, self._encode(against))  # many close-ups have one reference
        return float(F.cosine_similarity(self._encode(image), self._last[1]).clamp(-1, 1))

    def _encode(self, image: Tensor) -> Tensor:
        return self._encoder(prepare(image).to(self._device)).float().cpu()


def prepare(image: Float[Tensor, "H W 3"]) -> Float[Tensor, "1 3 S S"]:
    """Resize the short side to 256 (bicubic, antialiased), take the centre of 224, normalise as ImageNet's models want.

    Without antialiasing, what a large render has of fine detail would turn into patterns that nobody drew.
    """
    planes = image.permute(2, 0, 1)[None].float()
    planes = transforms.resize(planes, [SHORT_SIDE], transforms.InterpolationMode.BICUBIC, antialias=True)
    return transforms.normalize(transforms.center_crop(planes.clamp(0, 1), [CROP, CROP]), MEAN, STD)


def dino_metric(spec: MetricSpec, options: MetricOptions) -> Metric:
    """The DINO score with the backbone that is named, or `BACKBONE`.

    MetricUnavailable where transformers is not installed, or the backbone's weights are not here.
    """
    source = options.weights.get(spec.name, BACKBONE)
    model, weights = load_backbone(source, options.allow_download)
    model = model.to(options.device).eval()

    def encode(pixels: Tensor) -> Tensor:
        return model(pixel_values=pixels).last_hidden_state[:, 0]

    provenance = Provenance(
        f"transformers {version('transformers')}",
        backbone=source if not os.path.isdir(source) else Path(source).name,
        weights=weights.name if weights else "",
        sha256=sha256_of(weights) if weights else "",
        notes=f"CLS token, cosine, short side {SHORT_SIDE} antialiased, centre {CROP}, reference: whole photograph",
    )
    return spec.metric(provenance, DinoScore(encode, options.device))


def load_backbone(source: str, allow_download: bool) -> tuple[Any, Path | None]:
    """A vision transformer in transformers' layout, from a local folder or a hub id: (model, weights file).

    MetricUnavailable where the library or the weights are missing, or do not fit the model.
    """
    try:
        from transformers import AutoModel
    except ImportError as problem:
        raise MetricUnavailable("transformers is not installed: pip install 'closeup-ns[metrics]'") from problem
    try:
        model, loading = AutoModel.from_pretrained(
            source, local_files_only=not allow_download, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise MetricUnavailable(
            f"the DINO backbone {source} cannot be loaded ({reason}); allow the download, or name a local folder"
        ) from problem
    if not hasattr(model.config, "patch_size"):
        raise MetricUnavailable(f"{source} is a {type(model).__name__}, not a vision transformer")
    lacking = sorted(key for key in loading["missing_keys"] if "pooler" not in key and "mask_token" not in key)
    if lacking:  # transformers fills them with random numbers and only warns
        raise MetricUnavailable(f"the weights of {source} lack {lacking[0]} and {len(lacking) - 1} others")
    return model, _weights_file(source)


def _weights_file(source: str) -> Path | None:
    for name in _WEIGHT_FILES:
        if (Path(source) / name).is_file():
            return Path(source) / name
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(source, name) for name in _WEIGHT_FILES) if not os.path.isdir(source) else ()
    return next((Path(path) for path in found if isinstance(path, str)), None)
