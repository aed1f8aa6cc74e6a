"""See3D's network on the GPU: what a joint pass takes there, and one step against the CPU in float32."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tools._report import CheckFailed, Figures, Skipped

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from closeup_ns.refine.see3d.pipeline import See3DPipeline

_MOST_BYTES = 12e9
"""The aim for 18 frames at 512x512 in fp16."""
_MOST_ERROR = 0.03
"""Relative L2 distance of one guided prediction in fp16 from float32: rounding over fifty layers, and nothing more."""
_STEPS = 6
_TIMESTEP = 500


def available() -> None:
    """Skipped where packages of the see3d extra are missing."""
    from closeup_ns.errors import CloseupError
    from closeup_ns.refine.see3d.weights import require_packages

    try:
        require_packages()
    except CloseupError as error:
        raise Skipped(str(error)) from error


def make_pipeline(on_gpu: bool) -> See3DPipeline:
    """Random weights: full size in fp16 on the GPU, narrow ones on the CPU."""
    available()
    from benchmarks._see3d import random_pipeline

    return random_pipeline(torch.float16, "cuda") if on_gpu else random_pipeline(torch.float32, "cpu", small=True)


def measure_pass(pipeline: See3DPipeline) -> Figures:
    """Memory and time of 18 pictures at 512x512 on the GPU, of 4 at 64x64 on the CPU. CheckFailed above the aim."""
    from benchmarks._see3d import measure
    from closeup_ns.refine.see3d.schedule import timesteps

    on_gpu = pipeline.device.type == "cuda"
    frames, side, steps = (18, 512, _STEPS) if on_gpu else (4, 64, 2)
    told = measure(pipeline, frames, side, steps, pipeline.device)
    figures: dict[str, float | int | str] = {
        "frames": frames, "side": side, "step_s": told.step_seconds, "pass_s": told.seconds(len(timesteps(50))),
    }  # fmt: skip
    if on_gpu:
        figures |= {"peak_gb": told.peak_bytes / 1e9}
    if not told.is_finite:
        raise CheckFailed("not every pixel is a finite number", figures)
    if told.peak_bytes > _MOST_BYTES:
        raise CheckFailed(f"{told.peak_bytes / 1e9:.1f} GB, at most {_MOST_BYTES / 1e9:.0f} demanded", figures)
    return figures


def compare_step(pipeline: See3DPipeline) -> Figures:
    """One guided prediction in fp16 where the network is, and in float32 on the CPU with the same weights.

    CheckFailed where they differ by more than rounding.
    """
    network = pipeline.unet
    frames, side = (6, 16) if pipeline.device.type == "cuda" else (3, 8)
    half = network if network.dtype == torch.float16 else _copy(network, network.device, torch.float16)
    told = _predict(half, frames, side).float().cpu()
    expected = _predict(_copy(half, torch.device("cpu"), torch.float32), frames, side)
    error = float((told - expected).norm() / expected.norm())
    figures = {
        "frames": frames,
        "latent_side": side,
        "relative_error": error,
        "rms": float(expected.square().mean().sqrt()),
    }
    if not error <= _MOST_ERROR:
        raise CheckFailed(f"relative error {error:.3g}, at most {_MOST_ERROR} demanded", figures)
    return figures


def _copy(unet: UNet2DConditionModel, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    copied = copy.deepcopy(unet)
    nn.Module.to(copied, device, dtype)  # diffusers' own warns of a cast that is wanted here
    return copied


def _predict(unet: UNet2DConditionModel, frames: int, side: int) -> Tensor:
    """The guided prediction for random latents, the same wherever the network is."""
    from closeup_ns.refine.see3d.sampling import SceneLatents, predict

    generator = torch.Generator().manual_seed(0)
    latents, references = (torch.randn((frames // 2, 4, side, side), generator=generator) for _ in range(2))
    visual = torch.randn(latents.shape, generator=generator)
    masks = (torch.rand((len(latents), 1, side, side), generator=generator) < 0.5).float()
    context = torch.randn((1, 77, unet.config["cross_attention_dim"]), generator=generator)
    references, visual, masks, context, latents = (
        tensor.to(unet.device) for tensor in (references, visual, masks, context, latents)
    )
    scene = SceneLatents(references, visual, masks, context)
    with torch.no_grad():
        return predict(unet, scene, latents, visual, _TIMESTEP, guidance=2.0)
