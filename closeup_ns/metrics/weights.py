"""Weights of a metric from a local file, a cache, or the hub where that is allowed; with their checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from closeup_ns.metrics.metric import MetricOptions, MetricSpec, MetricUnavailable


def sha256_of(path: Path) -> str:
    """Checksum of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as read:
        for block in iter(lambda: read.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def named_file(spec: MetricSpec, options: MetricOptions) -> Path | None:
    """The weights file that the user named; None where none was. MetricUnavailable where it is no file."""
    local = options.weights.get(spec.name)
    if local is not None and not Path(local).is_file():
        raise MetricUnavailable(f"the weights of {spec.name} that were named, {local}, are not a file")
    return None if local is None else Path(local)


def torch_hub_file(spec: MetricSpec, options: MetricOptions, url: str, file_name: str) -> Path:
    """A weights file: the user's own, torch hub's cached one, or a fresh download.

    MetricUnavailable where there is none, and none may or can be fetched.
    """
    local = named_file(spec, options)
    if local is not None:
        return local
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if cached.is_file():
        return cached
    if not options.allow_download:
        raise MetricUnavailable(
            f"{file_name} is not in torch's cache; allow the download, or fetch {url} and name the file"
        )
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), progress=False)
    except OSError as problem:
        raise MetricUnavailable(f"{file_name} could not be downloaded from {url} ({problem})") from problem
    return cached


def load_state(path: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, never code.

    MetricUnavailable where it cannot be read, or is no table of tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch raises whatever the broken file made its readers raise
        reason = str(problem).splitlines()[0]
        raise MetricUnavailable(f"the weights of {name} in {path} cannot be read ({reason})") from problem
    for wrapper in ("state_dict", "params"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise MetricUnavailable(f"{path} holds no table of tensors, so no weights of {name}")
    return state


def fill(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> None:
    """Load all of ``network`` from ``state``, which came from ``path``. MetricUnavailable where the two differ."""
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())[:400]
        raise MetricUnavailable(f"{path} are not the weights of {name}: {reason}") from problem
