"""See3D's parts from the published files: one call, stock classes, and one clear error for whatever is broken."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from closeup_ns.errors import CloseupError, RefinerError, RefinerOutOfMemory
from closeup_ns.refine.libraries import out_of_memory, quiet
from closeup_ns.refine.options import SEE3D_REVISION
from closeup_ns.refine.see3d import layout
from closeup_ns.refine.see3d.layout import UNetName
from closeup_ns.refine.see3d.unet import load_unet, read_config
from closeup_ns.weights.header import read_header

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

LATENT_CHANNELS = 4
LATENT_SCALE = 8
"""Pixels of an image along a pixel of its latent."""

_TINY_SEED = 0

_TELLS_SIZES: dict[str, Any] = {"ignore_mismatched_sizes": True}
"""For transformers, which otherwise raises without the tensor's name, and leaves that to a report that is silenced."""


@dataclass
class Components:
    """What the pipeline is made of. Models are in evaluation mode, without gradients."""

    unet: UNet2DConditionModel
    """Nine channels in, four out; frames are not joined yet."""
    vae: AutoencoderKL
    """Images to latents and back, by a factor of eight."""
    text_encoder: CLIPTextModel
    """Reads the empty prompt."""
    tokenizer: CLIPTokenizer
    """Its padding is the files': SD 2 pads with "!", not with the end of text."""
    image_encoder: CLIPVisionModelWithProjection
    """Reads the first reference. Float32 unless asked otherwise, as in the authors' program."""
    feature_extractor: CLIPImageProcessor
    """Prepares the image encoder's input."""
    scheduler_config: dict[str, Any]
    """scheduler_config.json as it is: prediction type and timestep spacing are decided by it (schedule.py)."""


def load_components(
    source: Path | str,
    unet: UNetName,
    *,
    revision: str = SEE3D_REVISION,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    image_encoder_dtype: torch.dtype = torch.float32,
) -> Components:
    """Loads everything that one of the networks needs. Nothing is downloaded and no code of the weights' is run.

    Args:
        source: A folder that holds ``checkpoint/MVD_weights`` or is MVD_weights; a hub id whose files are in the local
            Hugging Face cache; or "tiny": small random towers, written to a temporary folder and loaded like any other.
        unet: Which of the published networks.
        revision: Commit of the hub's repository.
        dtype: Of every part but the image encoder.
        device: Where they go.
        image_encoder_dtype: Of the image encoder.

    Raises:
        RefinerError: packages, files or tensors are missing, broken or of another model. It names them.
        RefinerOutOfMemory: the memory does not suffice.
    """
    layout.require_packages()
    device = torch.device(device)
    if str(source) == layout.TINY:
        from closeup_ns.refine.see3d.tiny import write_tiny_weights

        # The tensors may be mapped from the files; on Linux they stay readable when the folder is gone.
        with tempfile.TemporaryDirectory(prefix="closeup-tiny-") as folder:
            written = write_tiny_weights(Path(folder), torch.Generator().manual_seed(_TINY_SEED), unets=(unet,))
            return _load(layout.find(written, revision), unet, dtype, device, image_encoder_dtype)
    folder = layout.find(source, revision)
    layout.check(folder, [unet])
    return _load(folder, unet, dtype, device, image_encoder_dtype)


def _load(
    folder: Path, unet: UNetName, dtype: torch.dtype, device: torch.device, image_encoder_dtype: torch.dtype
) -> Components:
    # Some releases of the libraries draw random values before they load: the caller's stay as they were.
    with quiet(), torch.random.fork_rng(devices=[]):
        components = Components(
            unet=_part(load_unet, folder / layout.unet_folder(unet), dtype, device),
            vae=_part(_load_vae, folder / layout.VAE, dtype, device),
            text_encoder=_part(_load_text_encoder, folder / layout.TEXT_ENCODER, dtype, device),
            tokenizer=_part(_load_tokenizer, folder / layout.TOKENIZER),
            image_encoder=_part(_load_image_encoder, folder / layout.IMAGE_ENCODER, image_encoder_dtype, device),
            feature_extractor=_part(_load_feature_extractor, folder / layout.IMAGE_ENCODER),
            scheduler_config=read_config(folder / layout.SCHEDULER / "scheduler_config.json"),
        )
    _check_fit(components, folder)
    _part(lambda place: _check_prompt(components), folder / layout.TOKENIZER)
    _part(lambda place: _check_picture(components), folder / layout.IMAGE_ENCODER)
    return components


def _load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> AutoencoderKL:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    # Without the shortcut through the meta device, on which diffusers 0.30 does not say what it passes over.
    return _complete(AutoencoderKL, folder, dtype, device, low_cpu_mem_usage=False)


def _load_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> CLIPTextModel:
    from transformers import CLIPTextModel

    return _complete(CLIPTextModel, folder, dtype, device, harmless=("position_ids",), **_TELLS_SIZES)


def _load_image_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> CLIPVisionModelWithProjection:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    projection = read_header(folder / "model.safetensors").get("visual_projection.weight")
    if projection is None:
        raise RefinerError("tensor 'visual_projection.weight' is missing from model.safetensors")
    # The file is a whole CLIP's, whose config says the width at its top level and may say another in the vision part.
    config.projection_dim = projection.shape[0]
    others = ("text_model.", "text_projection.", "logit_scale", "position_ids")
    kind = CLIPVisionModelWithProjection
    return _complete(kind, folder, dtype, device, harmless=others, config=config, **_TELLS_SIZES)


def _complete(
    kind: Any, folder: Path, dtype: torch.dtype, device: torch.device, harmless: tuple[str, ...] = (), **more: Any
) -> Any:
    """A stock model, all of whose tensors came from the files.

    Raises:
        RefinerError: the stock loader would have gone on with random values for a tensor, or passed one over that is
            not ``harmless``. It only warns of either.
    """
    model, info = kind.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True, **more
    )
    for fault in ("missing", "mismatched", "unexpected"):
        names = sorted(_told(key) for key in info.get(f"{fault}_keys", ()))
        names = [name for name in names if not any(part in name for part in harmless)]
        if names:
            rest = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise RefinerError(f"{fault} tensor {names[0]}{rest}")
    return model.to(device).eval().requires_grad_(False)


def _told(key: str | tuple[str, Sequence[int], Sequence[int]]) -> str:
    """A key of the loading report: a tensor's name; of one of another size with that of the file and the config's."""
    if isinstance(key, str):
        return repr(key)
    name, stored, configured = key
    return f"{name!r} (stored as {list(stored)}, {list(configured)} by the config)"


def _load_tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _load_feature_extractor(folder: Path) -> CLIPImageProcessor:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor.from_pretrained(folder, local_files_only=True)


def _check_fit(components: Components, folder: Path) -> None:
    """Whether the parts belong together.

    Raises:
        RefinerError: two parts that do not, with both widths.
    """
    vae, context = components.vae.config, components.unet.config["cross_attention_dim"]
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    if vae["latent_channels"] != LATENT_CHANNELS or scale != LATENT_SCALE:
        raise RefinerError(
            f"{folder / layout.VAE} makes latents of {vae['latent_channels']} channels at 1/{scale} of the size; "
            f"See3D's are of {LATENT_CHANNELS} at 1/{LATENT_SCALE}"
        )
    factor = vae["scaling_factor"]
    if not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
        raise RefinerError(f"{folder / layout.VAE} has the scaling_factor {factor!r}, which is no positive number")
    widths = {
        layout.TEXT_ENCODER: components.text_encoder.config.hidden_size,
        layout.IMAGE_ENCODER: components.image_encoder.config.projection_dim,
    }
    for part, width in widths.items():
        if width != context:
            raise RefinerError(f"{folder / part} gives tokens {width} wide, the UNet reads tokens {context} wide")


def _check_prompt(components: Components) -> None:
    """Whether the text encoder has what the tokenizer makes of the empty prompt.

    On a GPU a token beyond the vocabulary would not be an error but the end of the process' work on that GPU.

    Raises:
        RefinerError: it has not.
    """
    tokenizer, reader = components.tokenizer, components.text_encoder.config
    if tokenizer.model_max_length > reader.max_position_embeddings:
        raise RefinerError(
            f"it makes prompts of {tokenizer.model_max_length} tokens (model_max_length), the text encoder reads "
            f"{reader.max_position_embeddings}"
        )
    largest = max(tokenizer("", padding="max_length", max_length=tokenizer.model_max_length).input_ids)
    if largest >= reader.vocab_size:
        raise RefinerError(f"it makes token {largest}, the text encoder knows {reader.vocab_size}: another model's?")


def _check_picture(components: Components) -> None:
    """Whether the image encoder reads what its preprocessing makes.

    Raises:
        RefinerError: it does not.
    """
    picture = torch.zeros(3, 64, 64)
    made = components.feature_extractor(images=picture, do_rescale=False, return_tensors="pt")["pixel_values"]
    side = components.image_encoder.config.image_size
    if tuple(made.shape) != (1, 3, side, side):
        raise RefinerError(
            f"preprocessor_config.json makes pictures of {list(made.shape[1:])}, the image encoder reads "
            f"{[3, side, side]}"
        )


def _part(load: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Calls a loader, and says which folder it was if it fails.

    Raises:
        RefinerError: whatever went wrong, in one line; RefinerOutOfMemory where the memory did not suffice.
    """
    try:
        return load(folder, *arguments)
    except CloseupError as problem:
        raise problem if str(folder) in str(problem) else RefinerError(f"{folder}: {problem}") from problem
    except Exception as problem:  # the libraries raise whatever the broken file made their readers raise
        reason = " ".join(str(problem).split()) or type(problem).__name__
        if out_of_memory(problem):
            raise RefinerOutOfMemory(f"{folder} does not fit into memory: {reason}") from problem
        raise RefinerError(f"{folder} cannot be loaded: {reason}") from problem
