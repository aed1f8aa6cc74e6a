"""Diffusers pipelines that others published: found on disk, checked, loaded, asked, and never downloaded here.

Fetching is the user's step (each refusal names the command), so that training neither waits for the network nor changes
with it. Python code that comes with a model runs only where the user allowed it, and pickled weights not at all.
"""

from __future__ import annotations

import gc
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from closeup_ns.errors import CloseupError, RefinerError, RefinerOutOfMemory
from closeup_ns.refine.libraries import quiet
from closeup_ns.refine.see3d.layout import INSTALL, missing_packages

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Published:
    """A pipeline in diffusers' layout, as the options name it."""

    model: str
    """Local folder, or hub id whose files are in the local Hugging Face cache."""
    revision: str | None
    """Commit of the hub's repository."""
    option: str
    """Name of the option that holds ``model``, for messages."""
    classes: tuple[str, ...] = ()
    """Pipeline classes that will do; empty: any."""
    trusted: bool = False
    """Whether the Python code that comes with the model may run."""
    trust_option: str = ""
    """Name of the option that allows it; empty where none does."""

    def why_not(self) -> str | None:
        """Why it cannot be loaded, and what to do, in one line; None where it looks whole. Loads nothing."""
        try:
            self._check(self._folder())
        except RefinerError as problem:
            return str(problem)
        return None

    def load(self, loader: str, dtype: torch.dtype, device: torch.device, **parts: Any) -> Any:
        """The pipeline on ``device``, without progress bars.

        Args:
            loader: Class of diffusers whose ``from_pretrained`` loads it.
            dtype: Of all its networks.
            device: Where they go.
            parts: Further arguments of ``from_pretrained``.

        Raises:
            RefinerError: it cannot be loaded; RefinerOutOfMemory where it does not fit.
        """
        folder = self._folder()
        index = self._check(folder)
        code = _pipeline_code(folder, index)
        if code is not None:
            parts["custom_pipeline"] = str(code)
        import diffusers

        try:
            # Some releases of the libraries draw random values before they load: the caller's stay as they were.
            with quiet(), torch.random.fork_rng(devices=[]):
                pipeline = getattr(diffusers, loader).from_pretrained(
                    str(folder),
                    torch_dtype=dtype,
                    local_files_only=True,
                    use_safetensors=True,
                    trust_remote_code=self.trusted,
                    variant="fp16" if _only_half(folder, index) else None,
                    **parts,
                )
                pipeline.to(device)
        except torch.cuda.OutOfMemoryError as problem:
            raise RefinerOutOfMemory(f"{self.model} does not fit into the GPU's memory") from problem
        except Exception as problem:  # the libraries raise whatever the broken file made their readers raise
            raise RefinerError(f"{self.option} {self.model} cannot be loaded: {in_one_line(problem)}") from problem
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _folder(self) -> Path:
        """Where the files are. RefinerError, with what to do, where they are not."""
        missing = missing_packages()
        if missing:
            raise RefinerError(f"{', '.join(missing)} not installed: {INSTALL}")
        folder = Path(self.model).expanduser()
        if not folder.is_dir():
            if folder.exists() or not _HUB_ID.fullmatch(self.model):
                raise RefinerError(f"{self.option} {self.model!r} is neither a folder nor a hub id (owner/name)")
            folder = self._cached()
        if not (folder / "model_index.json").is_file():
            raise RefinerError(f"{self.option} {self.model} is no diffusers pipeline: {folder} has no model_index.json")
        return folder

    def _cached(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(self.model, revision=self.revision, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError) as problem:
            raise RefinerError(
                f"{self.option} {self.model}{f' at {self.revision}' if self.revision else ''} is not in the local "
                f"Hugging Face cache: {self._fetch()}, or name a folder that holds it"
            ) from problem

    def _fetch(self) -> str:
        at = f" --revision {self.revision}" if self.revision else ""
        return f"read its licence, then fetch it with `hf download {self.model}{at}`"

    def _check(self, folder: Path) -> dict[str, Any]:
        """model_index.json, after a look at what it names. RefinerError for what is missing or not allowed."""
        try:
            index = json.loads((folder / "model_index.json").read_text(encoding="utf8"))
            name = index["_class_name"]
            shown = name if isinstance(name, str) else name[1]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as problem:
            raise RefinerError(f"{folder / 'model_index.json'} cannot be read: {in_one_line(problem)}") from problem
        if self.classes and shown not in self.classes:
            raise RefinerError(f"{self.option} {self.model} is a {shown}; it must be a {' or '.join(self.classes)}")
        code = _code_files(folder, index)
        if code and not self.trusted:
            allow = f"allow it with {self.trust_option} True if you trust it" if self.trust_option else "take it out"
            raise RefinerError(
                f"{self.option} {self.model} comes with Python code ({', '.join(code)}) that would run here: read it, "
                f"and {allow}"
            )
        import diffusers  # its names are read without importing what is behind them

        if _pipeline_code(folder, index) is None and shown not in dir(diffusers):
            raise RefinerError(
                f"{self.option} {self.model} is a {shown}, which diffusers {diffusers.__version__} does not have: put "
                f"the file that defines it into {folder} as pipeline.py"
            )
        faults = [fault for name in _components(index) if (fault := _fault(folder / name)) is not None]
        if faults:
            # A download that was broken off is the usual reason.
            hint = f"; {self._fetch()}" if not Path(self.model).expanduser().is_dir() else ""
            raise RefinerError(f"{self.option} {self.model} is not complete: {', '.join(faults)}{hint}")
        return index


def ask(pipeline: Any, **keywords: Any) -> Float[Tensor, "3 h w"] | str:
    """The first picture of the pipeline's answer (float32, CPU, RGB), or one sentence that says why there is none.

    Raises:
        RefinerOutOfMemory: it did not fit.
    """
    kind = type(pipeline).__name__
    try:
        with torch.no_grad(), quiet():
            answer = pipeline(**keywords)
        images = answer.images if hasattr(answer, "images") else answer[0]
        picture = _as_tensor(images[0])
    except torch.cuda.OutOfMemoryError as problem:
        raise RefinerOutOfMemory(f"{kind}: {in_one_line(problem)}") from problem
    except CloseupError:
        raise
    except Exception as problem:  # a stranger's code: what it cannot do with this view is that view's failure
        return f"{kind} failed: {in_one_line(problem)}"
    flagged = getattr(answer, "nsfw_content_detected", None)
    if flagged is not None and flagged[0]:
        return f"the safety checker of {kind} blanked the picture"
    if picture.ndim != 3 or picture.shape[0] != 3:
        return f"{kind} gave a picture of shape {list(picture.shape)}, not RGB"
    if not bool(picture.isfinite().all()):
        return f"{kind} gave NaN or infinite pixels"
    return picture


def _as_tensor(image: Any) -> Tensor:
    """[3, h, w] from what pipelines give: a tensor of that shape, an array [h, w, 3], or a PIL picture."""
    if isinstance(image, torch.Tensor):
        return image.detach().float().cpu()
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).movedim(-1, 0)


def in_one_line(problem: BaseException) -> str:
    """An error's message without line breaks, cut where libraries go on for pages."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 400 else f"{text[:400]} ..."


def free(device: torch.device) -> None:
    """Gives back the memory of networks that nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _components(index: dict[str, Any]) -> list[str]:
    """Names of the parts that have files."""
    return [
        name
        for name, entry in index.items()
        if not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
    ]


def _pipeline_code(folder: Path, index: dict[str, Any]) -> Path | None:
    """The file beside model_index.json that defines the pipeline's class; None where diffusers has it."""
    name = index["_class_name"]
    if not isinstance(name, str):
        return folder / f"{name[0]}.py"
    import diffusers

    if name in dir(diffusers):
        return None
    defines = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    for path in sorted(folder.glob("*.py")):
        if defines.search(path.read_text(encoding="utf8", errors="replace")):
            return path
    return None


def _code_files(folder: Path, index: dict[str, Any]) -> list[str]:
    """The files of Python code that loading would run, relative to ``folder``."""
    code = _pipeline_code(folder, index)
    found = [] if code is None else [code.name]
    for name in _components(index):
        if (folder / name / f"{index[name][0]}.py").is_file():
            found.append(f"{name}/{index[name][0]}.py")
    return found


def _fault(part: Path) -> str | None:
    """What a part's folder lacks, as far as names and sizes tell."""
    if not part.is_dir() or not any(part.iterdir()):
        return f"{part.name}/ is missing"
    empty = [path.name for path in part.iterdir() if not path.exists() or (path.is_file() and not path.stat().st_size)]
    if empty:
        return f"{part.name}/{empty[0]} is empty"
    # Only networks have a config.json; those of schedulers and tokenizers have other names.
    if (part / "config.json").is_file() and not any(part.glob("*.safetensors")):
        pickled = any(part.glob("*.bin"))
        return f"{part.name}/ has no .safetensors" + (" (its pickled .bin is not loaded)" if pickled else "")
    return None


def _only_half(folder: Path, index: dict[str, Any]) -> bool:
    """Whether some network is there in its fp16 variant alone: many fetch only that."""
    files = [list((folder / name).glob("*.safetensors")) for name in _components(index)]
    return any(part and all(".fp16" in path.name for path in part) for part in files)
