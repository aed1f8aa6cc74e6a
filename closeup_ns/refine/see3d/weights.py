"""Where See3D's published files are, and what of them is missing. Nothing here loads a model.

The layout is that of the hub's repository (research dossier on See3D, 1.3): ``checkpoint/MVD_weights/`` with the common
parts beside three UNets.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from closeup_ns.errors import RefinerError
from closeup_ns.reading import read_json
from closeup_ns.refine.options import SEE3D_HUB
from closeup_ns.refine.see3d.schedule import make_scheduler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

UNetName = Literal["sparse", "single", "SR"]
UNETS: tuple[UNetName, ...] = get_args(UNetName)

SEE3D_REVISION = "cbf13b6f813137134907408e40d3f2a17d6f0a80"
"""The commit that third-party tools pin, and the only one that this loader was written for: a changed model must not
change a run silently."""
BELOW = "checkpoint/MVD_weights"
"""Where the files are in the hub's repository, which holds example data as well."""
IMAGE_ENCODER = "CLIP-ViT-H-14-laion2B-s32B-b79K"
SCHEDULER_FILE = "scheduler/scheduler_config.json"
COMMON_FILES = (
    SCHEDULER_FILE,
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    f"{IMAGE_ENCODER}/config.json",
    f"{IMAGE_ENCODER}/preprocessor_config.json",
    f"{IMAGE_ENCODER}/model.safetensors",
)
"""What every network needs. The image encoder's ``open_clip_pytorch_model.bin`` is a second copy that nothing reads."""
PACKAGES = ("diffusers", "transformers", "accelerate", "safetensors")
INSTALL = "pip install 'closeup-ns[see3d]'"


def unet_folder(unet: UNetName) -> str:
    """Where one of the UNets is, below MVD_weights."""
    return f"unet/{unet}/ema-checkpoint"


def needed_files(unets: Sequence[UNetName]) -> list[str]:
    """What the named networks need, below MVD_weights."""
    return [*COMMON_FILES, *(f"{unet_folder(unet)}/diffusion_pytorch_model.safetensors" for unet in unets)]


def require_packages() -> None:
    """Raises RefinerError, with the command that installs them, where packages of the see3d extra are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RefinerError(f"See3D needs {', '.join(missing)}: {INSTALL}")


def weights_folder(source: str | Path) -> Path:
    """The MVD_weights folder of a local folder, or of a hub id's copy in the local Hugging Face cache.

    Nothing is downloaded: training never reaches for the network.

    Raises:
        RefinerError: there is none; the message says what was looked for and the command that helps.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        for candidate in (folder / BELOW, folder / "MVD_weights", folder):
            if (candidate / "unet").is_dir():
                return candidate
        raise RefinerError(f"{folder} does not hold See3D's weights: there is no {BELOW}/unet and no unet in it")
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return _snapshot(str(source), UNETS, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError) as problem:
        raise RefinerError(
            f"See3D's weights {source} are neither a folder nor in the local Hugging Face cache: `closeup-gs weights "
            "see3d` fetches them; or name a folder that holds them"
        ) from problem


def fetch(unets: Sequence[UNetName]) -> Path:
    """Brings what ``unets`` need into the local Hugging Face cache; what is there already stays.

    Returns:
        MVD_weights in the cache.

    Raises:
        RefinerError: the hub cannot be reached, or does not have the repository.
    """
    try:
        return _snapshot(SEE3D_HUB, unets, local_files_only=False)
    except OSError as problem:  # all of the hub's own errors of the network and of the cache are that
        raise RefinerError(
            f"{SEE3D_HUB} cannot be fetched: {' '.join(str(problem).split())}. What is complete is kept; the same "
            "command goes on from there"
        ) from problem


def _snapshot(repository: str, unets: Sequence[UNetName], local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    optional = ("tokenizer/special_tokens_map.json", "tokenizer/added_tokens.json")
    folder = snapshot_download(
        repository,
        revision=SEE3D_REVISION if repository == SEE3D_HUB else None,
        allow_patterns=[f"{BELOW}/{name}" for name in (*needed_files(unets), *optional)],
        local_files_only=local_files_only,
    )
    return Path(folder) / BELOW


def faults(folder: Path, unets: Sequence[UNetName]) -> list[str]:
    """Each file that ``unets`` need and that is missing or cut off, with the reason. No tensor is read."""
    from safetensors import SafetensorError, safe_open

    found = []
    for name in needed_files(unets):
        path = folder / name
        if not path.is_file():
            found.append(f"{name} (missing)")
        elif path.suffix == ".safetensors":
            try:
                with safe_open(str(path), framework="pt"):
                    pass
            except (SafetensorError, OSError) as problem:
                found.append(f"{name} ({problem})")
    return found


def why_not(source: str, unet: UNetName) -> str | None:
    """Why See3D cannot run with these weights, in one line, or None. Reads no more than headers."""
    try:
        require_packages()
        folder = weights_folder(source)
        found = faults(folder, [unet])
        if found:
            return (
                f"See3D's weights in {folder} are not complete: {'; '.join(found)}. "
                f"`closeup-gs weights see3d --unets {unet}` fetches them"
            )
        read_scheduler(folder)
    except RefinerError as problem:
        return str(problem)
    return None


def read_scheduler(folder: Path) -> DDIMScheduler:
    """The scheduler of MVD_weights. RefinerError where its file cannot be read or is another model's."""
    return make_scheduler(read_json(folder / SCHEDULER_FILE, dict[str, Any], "Copy it again.", RefinerError))
