"""See3D's network with random weights: the memory of a joint pass on a GPU, and half precision against float32."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.sampling import SceneLatents, predict
from tests.gpu.marks import needs_gpu

pytest.importorskip("diffusers")
from benchmarks.see3d import measure, random_pipeline

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

MOST_BYTES = 12e9
"""The aim for 18 frames at 512x512 in fp16."""
MOST_ERROR = 0.03
"""Relative L2 distance of one guided prediction in fp16 from float32: rounding over fifty layers, and nothing more."""


@pytest.fixture(scope="module", params=["small", pytest.param("full", marks=needs_gpu)])
def pipeline(request: pytest.FixtureRequest) -> See3DPipeline:
    return random_pipeline(request.param == "small")


def predicted(unet: UNet2DConditionModel, frames: int, side: int) -> Tensor:
    """The guided prediction for random latents, the same wherever the network is."""
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
        return predict(unet, scene, latents, visual, 500, guidance=2.0)


def copied(unet: UNet2DConditionModel, device: str, dtype: torch.dtype) -> UNet2DConditionModel:
    made = copy.deepcopy(unet)
    nn.Module.to(made, device, dtype)  # diffusers' own warns of a cast that is wanted here
    return made


def test_a_step_in_half_precision_is_that_in_float32(pipeline: See3DPipeline) -> None:
    device = pipeline.device.type
    frames, side = (6, 16) if device == "cuda" else (3, 8)
    half = copied(pipeline.unet, device, torch.float16)
    told = predicted(half, frames, side).float().cpu()
    expected = predicted(copied(half, "cpu", torch.float32), frames, side)
    error = float((told - expected).norm() / expected.norm())
    print(f"one step on {device} in fp16 against float32 on the CPU: relative error {error:.2%}")
    assert 0 < error <= MOST_ERROR


def test_a_joint_pass_fits_and_is_finite(pipeline: See3DPipeline) -> None:
    frames, side, steps = (18, 512, 6) if pipeline.device.type == "cuda" else (4, 64, 2)
    told = measure(pipeline, frames, side, steps)
    print(f"{frames} pictures at {side}x{side}: {told}")
    assert told.is_finite and told.peak_bytes <= MOST_BYTES
