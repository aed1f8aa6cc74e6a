"""Where the published files are, which of them a network needs, and what is wrong with them.

The layout is the one of the hub repository (research/see3d.md 1.3): ``checkpoint/MVD_weights/`` with the common parts
beside three UNets. Nothing here loads a model; at most the headers of weight files are read.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d.schedule import SCHEDULER_FILE, check_scheduler
from closeup_ns.refine.see3d.unet import check_unet, read_config
from closeup_ns.weights.files import fault_of
from closeup_ns.weights.hub import cached_file

UNetName = Literal["sparse", "single", "SR"]
UNETS: tuple[UNetName, ...] = get_args(UNetName)

TINY = "tiny"
"""Stands for small random towers that are written, and loaded through the same path, when they are asked for."""
BELOW = "checkpoint/MVD_weights"
"""Where the files are in the hub's repository; it holds example data as well."""
SCHEDULER, TOKENIZER, TEXT_ENCODER, VAE = "scheduler", "tokenizer", "text_encoder", "vae"
IMAGE_ENCODER = "CLIP-ViT-H-14-laion2B-s32B-b79K"

COMMON_FILES = (
    f"{SCHEDULER}/scheduler_config.json",
    f"{TOKENIZER}/vocab.json",
    f"{TOKENIZER}/merges.txt",
    f"{TOKENIZER}/tokenizer_config.json",
    f"{TEXT_ENCODER}/config.json",
    f"{TEXT_ENCODER}/model.safetensors",
    f"{VAE}/config.json",
    f"{VAE}/diffusion_pytorch_model.safetensors",
    f"{IMAGE_ENCODER}/config.json",
    f"{IMAGE_ENCODER}/preprocessor_config.json",
    f"{IMAGE_ENCODER}/model.safetensors",
)
"""What every mode needs, below MVD_weights. ``model_index.json`` names the authors' own class and is not used; the
image encoder's ``open_clip_pytorch_model.bin`` is a second copy that nothing reads."""

OPTIONAL_FILES = (f"{TOKENIZER}/special_tokens_map.json", f"{TOKENIZER}/added_tokens.json", "model_index.json")
"""Fetched where they are: the first says what pads the empty prompt, wherever tokenizer_config.json says otherwise."""

PACKAGES = ("diffusers", "transformers", "accelerate", "safetensors")
INSTALL = "pip install 'closeup-ns[see3d]'"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def unet_folder(unet: UNetName) -> str:
    """Where one of the UNets is, below MVD_weights."""
    return f"unet/{unet}/ema-checkpoint"


def files_for(unets: Sequence[UNetName]) -> tuple[str, ...]:
    """What the named networks need, below MVD_weights."""
    names = ("config.json", "diffusion_pytorch_model.safetensors")
    return COMMON_FILES + tuple(f"{unet_folder(unet)}/{name}" for unet in unets for name in names)


def find(source: str | Path, revision: str) -> Path:
    """The MVD_weights folder of a local folder, or of a hub id's copy in the local Hugging Face cache.

    Nothing is downloaded here: training never reaches for the network.

    Raises:
        RefinerError: there is none; the message says what was looked for and the command that helps.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        for candidate in (folder / BELOW, folder / "MVD_weights", folder):
            if (candidate / "unet").is_dir():
                return candidate
        raise RefinerError(
            f"{folder} does not hold See3D's weights: there is no {BELOW}/unet and no unet in it; "
            f"`closeup-gs weights see3d --folder {folder}` lists what belongs there"
        )
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        raise RefinerError(f"See3D's weights: {source} is neither a folder, nor a hub id (owner/name), nor {TINY!r}")
    cached = cached_folder(str(source), revision)
    if cached is None:
        raise RefinerError(
            f"See3D's weights {source} at revision {revision[:12]} are not in the local Hugging Face cache: "
            f"`{fetch_command(str(source), revision)}` fetches them; or name a folder that holds them"
        )
    return cached


def cached_folder(repository: str, revision: str) -> Path | None:
    """MVD_weights of one revision in the local Hugging Face cache, whole or not; None if no file of it is there."""
    # Any one file will do: the cache's own lookup of a whole snapshot wants every file of the repository to be there.
    for name in files_for(UNETS):
        path = cached_file(repository, revision, f"{BELOW}/{name}")
        if path is not None:
            return path.parents[len(Path(name).parts) - 1]
    return None


def problems(folder: Path, unets: Sequence[UNetName]) -> list[str]:
    """Each file that ``unets`` need and that is missing, empty, cut off or unreadable, with the reason."""
    found = []
    for name in files_for(unets):
        fault = fault_of(folder / name)
        if fault:
            found.append(f"{name} ({fault}{_beside(folder / name)})")
    return found


def _beside(path: Path) -> str:
    """What is there in place of a missing weight file, in words: other releases of models are published so."""
    if path.suffix != ".safetensors" or path.exists():
        return ""
    pickled = [path.with_suffix(".bin"), path.with_name("pytorch_model.bin")]
    others = [*path.parent.glob(f"{path.stem}*.safetensors*"), *(other for other in pickled if other.is_file())]
    if not others:
        return ""
    hint = "pickled files are not loaded" if others[0].suffix == ".bin" else "rename or merge it"
    return f"; {others[0].name} is there: {hint}"


def check(folder: Path, unets: Sequence[UNetName]) -> None:
    """Whether all files of ``unets`` are there and whole, judged by sizes and headers.

    Raises:
        RefinerError: with every file that is not, and the command that helps.
    """
    found = problems(folder, unets)
    if found:
        raise RefinerError(
            f"See3D's weights in {folder} are not complete: {'; '.join(found)}. "
            f"`closeup-gs weights see3d --unets {' '.join(unets)}` fetches them; "
            f"`closeup-gs weights see3d --unets {' '.join(unets)} --folder {folder}` verifies these"
        )


def why_not(config: object, device: torch.device) -> str | None:
    """Why See3D cannot run with these options, in one line, or None. Reads no more than headers.

    Args:
        config: ``See3DRefinerConfig`` or ``See3DSRConfig``.
        device: Not weighed here: on a CPU it is slow, not impossible.
    """
    del device
    missing = missing_packages()
    if missing:
        return f"{', '.join(missing)} not installed: {INSTALL}"
    source = str(getattr(config, "weights", ""))
    if source == TINY:
        return None
    try:
        folder = find(source, str(getattr(config, "revision", "")))
        unet = needed_unet(config, folder)
        check(folder, [unet])
        # Which of two whole networks "auto" takes depends on a pass' references: both have to be See3D's.
        either = getattr(config, "unet", "SR") == "auto" and unet == "sparse" and not problems(folder, ["single"])
        for name in (unet, "single") if either else (unet,):
            check_unet(folder / unet_folder(name))
        check_scheduler(read_config(folder / SCHEDULER_FILE))
    except RefinerError as problem:
        return str(problem)
    return None


def needed_unet(config: object, folder: Path) -> UNetName:
    """Which network the options ask for: SR for the enhancer's, and for auto the one that is there, sparse first."""
    asked: UNetName | Literal["auto"] = getattr(config, "unet", "SR")
    if asked != "auto":
        return asked
    only_single = (folder / unet_folder("single")).is_dir() and not (folder / unet_folder("sparse")).is_dir()
    return "single" if only_single else "sparse"


def missing_packages() -> list[str]:
    """Those of the see3d extra that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def require_packages() -> None:
    """Raises RefinerError, with the command that installs them, where packages of the see3d extra are missing."""
    missing = missing_packages()
    if missing:
        raise RefinerError(f"See3D needs {', '.join(missing)}: {INSTALL}")


def fetch_command(source: str, revision: str) -> str:
    """The command that fetches a hub id's files."""
    from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION

    repository = "" if source == SEE3D_HUB else f" --repository {source}"
    return f"closeup-gs weights see3d{repository}{'' if revision == SEE3D_REVISION else f' --revision {revision}'}"
