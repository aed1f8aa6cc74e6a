"""See3D with random weights: its pipeline at full size, and how long and how much memory a joint pass of it takes."""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from closeup_ns.refine.see3d.budget import JointPass, full_size_towers
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.schedule import make_scheduler

_SCHEDULER = {
    "prediction_type": "v_prediction", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "set_alpha_to_one": False,
}  # fmt: skip
_WORDS = 77


class _EmptyPrompt:
    """Stands for the tokenizer, whose vocabulary is the one thing that cannot be made up here."""

    model_max_length = _WORDS

    def __call__(self, _text: str, **_keywords: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=torch.tensor([[49406] + [49407] * (_WORDS - 1)]))


def fill(tower: nn.Module, generator: torch.Generator) -> None:
    """Random weights of the size that keeps activations about as large as they come in; norms and biases idle."""
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)


def full_size_pipeline(dtype: torch.dtype, device: torch.device | str, seed: int = 0) -> See3DPipeline:
    """The pipeline with towers of the published sizes and random weights; CLIP's vision tower in float32."""
    from transformers import CLIPImageProcessor

    towers = full_size_towers(device)
    towers.unet.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, tower in towers.items():
        tower.to(torch.float32 if name == "image_encoder" else dtype)
        fill(tower, generator)
    return See3DPipeline(
        vae=towers.vae, text_encoder=towers.text_encoder, image_encoder=towers.image_encoder, unet=towers.unet,
        tokenizer=_EmptyPrompt(), feature_extractor=CLIPImageProcessor(), scheduler=make_scheduler(_SCHEDULER),  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One pass, as it went."""

    step_seconds: float
    """Median over the steps but the first, which warms kernels up."""
    around_seconds: float
    """Everything but the steps: encoding, context, decoding."""
    peak_bytes: int
    """torch.cuda.max_memory_allocated over the pass, weights included; 0 on a CPU."""
    reserved_bytes: int
    """torch.cuda.max_memory_reserved: what the allocator held; 0 on a CPU."""
    is_finite: bool
    """Whether every pixel came out as a number."""

    def seconds(self, evaluations: int) -> float:
        """Of a pass with that many steps."""
        return self.around_seconds + evaluations * self.step_seconds


def measure(pipeline: See3DPipeline, asked: JointPass, steps: int, device: torch.device) -> Measured:
    """Runs one pass of a few steps with random pictures, half of them references."""
    on_gpu = device.type == "cuda"
    generator = torch.Generator().manual_seed(0)
    references = asked.frames // 2
    size = (asked.height, asked.width)
    pictures = torch.rand((asked.frames, 3, *size), generator=generator)
    masks = torch.rand((asked.frames - references, *size), generator=generator) < 0.5
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    moments = [_now(device)]
    output = pipeline(
        pictures[:references], pictures[references:], masks, generator=generator, steps=steps,
        batched_guidance=asked.batched_guidance, progress=lambda _done, _total: moments.append(_now(device)),
    )  # fmt: skip
    total = _now(device) - moments[0]
    lengths = [after - before for before, after in itertools.pairwise(moments[1:])]
    step = statistics.median(lengths) if lengths else moments[1] - moments[0]
    return Measured(
        step_seconds=step,
        around_seconds=max(0.0, total - output.evaluations * step),
        peak_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else 0,
        reserved_bytes=torch.cuda.max_memory_reserved(device) if on_gpu else 0,
        is_finite=bool(output.images.isfinite().all()),
    )


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
