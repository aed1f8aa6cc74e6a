"""Which of See3D's networks refines, in which precision, and how it is brought into memory."""

from __future__ import annotations

from typing import Literal

import torch

from closeup_ns.refine.libraries import torch_dtype
from closeup_ns.refine.options import See3DRefinerConfig
from closeup_ns.refine.see3d import layout
from closeup_ns.refine.see3d.joint import JointModel

Network = Literal["sparse", "single"]


def choose_network(config: See3DRefinerConfig, references: int) -> Network:
    """The configured network; for ``auto`` the one that was trained for so many references, if it is there.

    Raises:
        RefinerError: there are no weights.
    """
    if config.unet != "auto":
        return config.unet
    if config.weights == layout.TINY:
        return "single" if references == 1 else "sparse"
    folder = layout.find(config.weights, config.revision)
    if references == 1 and not layout.problems(folder, ["single"]):
        return "single"
    usual = layout.needed_unet(config, folder)
    return "single" if usual == "single" else "sparse"


def load_network(config: See3DRefinerConfig, network: Network, device: torch.device) -> JointModel:
    """See3D's pipeline with one of its networks, silent, on ``device`` or brought there tower by tower.

    Raises:
        RefinerError: packages, files or tensors are missing, broken or of another model.
    """
    layout.require_packages()
    from closeup_ns.refine.see3d.pipeline import See3DPipeline

    offload = config.cpu_offload and device.type != "cpu"
    pipeline = See3DPipeline.from_pretrained(
        config.weights,
        unet=network,
        revision=config.revision,
        dtype=torch_dtype(config.dtype, device),
        device="cpu" if offload else device,
    )
    pipeline.set_progress_bar_config(disable=True)
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    return pipeline
