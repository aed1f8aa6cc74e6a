"""See3D's parts from the published files, by the loaders of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.libraries import out_of_memory, quiet
from closeup_ns.refine.see3d.pipeline import See3DPipeline
from closeup_ns.refine.see3d.stage import BASE, SR
from closeup_ns.refine.see3d.unet import WEIGHTS_FILE, load_unet
from closeup_ns.refine.see3d.weights import IMAGE_ENCODER, UNetName, read_scheduler, unet_folder


def load_pipeline(folder: Path, unet: UNetName, dtype: torch.dtype, device: torch.device) -> See3DPipeline:
    """See3D from the published files. Nothing is downloaded, no pickle is read, no code of the weights' is run.

    Args:
        folder: MVD_weights.
        unet: Which of the published networks; ``SR`` makes a pipeline of the SR stage.
        dtype: Of every part but CLIP's vision tower, which is float32 as in the authors' program.
        device: Where the parts are put; the CPU where ``enable_model_cpu_offload`` follows.

    Raises:
        RefinerError: files or tensors are missing, broken or of another model. It names the folder.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    parts: dict[str, Any] = {"scheduler": read_scheduler(folder)}
    # Some releases of the libraries draw random values before they load: the caller's stay as they were.
    with quiet(), torch.random.fork_rng(devices=[]):
        with _named(folder / unet_folder(unet) / WEIGHTS_FILE) as place:
            parts["unet"] = load_unet(place, dtype, device)
        with _named(folder / "vae") as place:
            parts["vae"] = _complete(AutoencoderKL, place, dtype, device, low_cpu_mem_usage=False)
        with _named(folder / "text_encoder") as place:
            parts["text_encoder"] = _complete(CLIPTextModel, place, dtype, device)
        with _named(folder / "tokenizer") as place:
            parts["tokenizer"] = CLIPTokenizer.from_pretrained(place, local_files_only=True)
        with _named(folder / IMAGE_ENCODER) as place:
            # The file is a whole CLIP's, whose config says the projection's width at its top level.
            width = CLIPConfig.from_pretrained(place, local_files_only=True).projection_dim
            config = CLIPVisionConfig.from_pretrained(place, local_files_only=True, projection_dim=width)
            tower = _complete(CLIPVisionModelWithProjection, place, torch.float32, device, config=config)
            parts["image_encoder"] = tower
            parts["feature_extractor"] = CLIPImageProcessor.from_pretrained(place, local_files_only=True)
    return See3DPipeline(**parts, stage=SR if unet == "SR" else BASE)


def _complete(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device, **more: Any) -> Any:
    """A stock model, all of whose tensors came from the files.

    Raises:
        RefinerError: the stock loader went on with random values for a tensor, of which it only warns.
    """
    model, told = kind.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **more
    )
    missing = sorted(name for name in told["missing_keys"] if not name.endswith("position_ids"))
    if missing:
        raise RefinerError(f"{len(missing)} tensors are missing from its file, {missing[0]} among them")
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _named(folder: Path) -> Iterator[Path]:
    """Says which folder or file it was where a loader fails, in one line.

    Raises:
        RefinerError: whatever went wrong, except that the memory did not suffice.
    """
    try:
        yield folder
    except Exception as problem:  # the libraries raise whatever the broken file made their readers raise
        if out_of_memory(problem):
            raise
        reason = " ".join(str(problem).split())[:600] or type(problem).__name__
        raise RefinerError(f"{folder} cannot be loaded: {reason}") from problem
