"""A joint pass on a GPU that is not there: tensors that have a device and a size, and no content.

Torch's own stand-ins refuse what CUDA would refuse: two devices in one operation, two types in one product. The rest of
a GPU (memory, speed, its kernels' rounding) is not seen by this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from closeup_ns.refine.see3d.pipeline import See3DPipeline
from tests.refine.see3d.conftest import Load

GPU = torch.device("cuda:0")
TOWERS = ("unet", "vae", "text_encoder", "image_encoder")


def each_tensor(module: nn.Module, change: Callable[[Tensor], Tensor]) -> nn.Module:
    """Replaces parameters and buffers; torch's own way to move a module cannot exchange stand-ins."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = nn.Parameter(change(value), requires_grad=False)
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = change(value)
    return module


@contextmanager
def without_content(pipeline: See3DPipeline, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The towers as stand-ins on ``device``. What the schedule reads of its table are numbers."""
    scheduler: Any = pipeline.scheduler
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.tolist()
    scheduler.final_alpha_cumprod = float(scheduler.final_alpha_cumprod)
    monkeypatch.setattr(nn.Module, "_apply", lambda module, change, recurse=True: each_tensor(module, change))
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name in TOWERS:
            each_tensor(getattr(pipeline, name), lambda value: torch.empty_like(value, device=device))
        yield


def places(pipeline: See3DPipeline) -> dict[str, str]:
    return {name: next(getattr(pipeline, name).parameters()).device.type for name in TOWERS}


def run(pipeline: See3DPipeline, pictures: torch.device, progress: Callable[[int, int], None]) -> Tensor:
    generators = [torch.Generator().manual_seed(index) for index in range(3)]
    shown = torch.empty(2, 3, 64, 128, device=pictures)
    masks = torch.empty(2, 64, 128, dtype=torch.bool, device=pictures)
    latents = torch.empty(2, 4, 8, 16, device=pictures)
    return pipeline(shown[:1], shown, masks, latents=latents, generators=generators, steps=1, progress=progress)


def test_no_two_devices_or_types_meet(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(dtype=torch.float16)
    with without_content(pipeline, GPU, monkeypatch):
        images = run(pipeline, torch.device("cpu"), lambda done, total: None)
        assert (images.device.type, images.dtype, tuple(images.shape)) == ("cpu", torch.float32, (2, 3, 64, 128))
        assert run(pipeline, GPU, lambda done, total: None).device == GPU


def test_offloaded_towers_come_to_the_gpu_one_after_the_other(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(dtype=torch.float16)
    at_each_step: list[dict[str, str]] = []
    with without_content(pipeline, torch.device("cpu"), monkeypatch):
        pipeline.enable_model_cpu_offload(device=GPU)
        for _ in range(2):  # the second pass finds everything as the first one did
            images = run(pipeline, GPU, lambda done, total: at_each_step.append(places(pipeline)))
            assert images.device == GPU and set(places(pipeline).values()) == {"cpu"}
    expected = {"unet": "cuda", "vae": "cuda", "text_encoder": "cpu", "image_encoder": "cpu"}
    assert at_each_step == [expected, expected]
