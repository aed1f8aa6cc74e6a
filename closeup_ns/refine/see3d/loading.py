"""See3D's parts from the published files, by the loaders of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from closeup_ns.errors import CloseupError, RefinerError, RefinerOutOfMemory
from closeup_ns.refine.libraries import out_of_memory, quiet
from closeup_ns.refine.see3d.schedule import make_scheduler
from closeup_ns.refine.see3d.unet import load_unet
from closeup_ns.refine.see3d.weights import IMAGE_ENCODER, SCHEDULER_FILE, UNetName, read_json, unet_folder


def load_parts(folder: Path, unet: UNetName, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The arguments of ``See3DPipeline``. Nothing is downloaded, no pickle is read, no code of the weights' is run.

    Args:
        folder: MVD_weights.
        unet: Which of the published networks.
        dtype: Of every part but CLIP's vision tower, which is float32 as in the authors' program.
        device: Where they go.

    Raises:
        RefinerError: files or tensors are missing, broken or of another model. It names the folder.
        RefinerOutOfMemory: the memory does not suffice.
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

    parts: dict[str, Any] = {"scheduler": make_scheduler(read_json(folder / SCHEDULER_FILE))}
    # Some releases of the libraries draw random values before they load: the caller's stay as they were.
    with quiet(), torch.random.fork_rng(devices=[]):
        with _named(folder / unet_folder(unet)) as place:
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
    return parts


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
    """Says which folder it was where a loader fails.

    Raises:
        RefinerError: whatever went wrong, in one line; RefinerOutOfMemory where the memory did not suffice.
    """
    try:
        yield folder
    except Exception as problem:  # the libraries raise whatever the broken file made their readers raise
        reason = " ".join(str(problem).split()) or type(problem).__name__
        if out_of_memory(problem):
            raise RefinerOutOfMemory(f"{folder} does not fit into memory: {reason}") from problem
        if isinstance(problem, CloseupError) and str(folder) in reason:
            raise
        raise RefinerError(f"{folder} cannot be loaded: {reason}") from problem
