"""Files of a model on the Hugging Face hub at one commit: what they are, and how they get into the local cache.

A thin layer over huggingface_hub, which is imported at first use; its many kinds of failure become one.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from closeup_ns.errors import CloseupError, RefinerError
from closeup_ns.weights.files import Expected, FileState, inspect

_SPARE = 2**28
"""Bytes that are left free on the cache's disk."""


class HubUnreachable(RefinerError):
    """The hub, or what was asked of it, cannot be had now."""


def require() -> None:
    """Raises RefinerError, with the command that installs it, where huggingface_hub is missing."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise RefinerError("huggingface_hub is not installed: pip install 'closeup-ns[see3d]'")


def cached_file(repository: str, revision: str, name: str) -> Path | None:
    """Where a file of this revision is in the local cache; None if it is not there.

    Raises:
        RefinerError: ``repository`` is no hub id.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        found = try_to_load_from_cache(repository, name, constants.HF_HUB_CACHE, revision)
    except HFValidationError as problem:
        raise RefinerError(f"{repository!r} is no hub id of the form owner/name") from problem
    return Path(found) if isinstance(found, str) else None


def published_files(repository: str, revision: str, names: Sequence[str]) -> dict[str, Expected]:
    """What the hub says of those of ``names`` that the repository has at ``revision``.

    Raises:
        HubUnreachable: no answer, or the repository or the revision is not there.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.hf_api import RepoFile

    with _hub_errors(repository, revision):
        found = HfApi(constants.ENDPOINT).get_paths_info(repository, list(names), revision=revision)
    return {
        file.path: Expected(file.size, file.lfs.sha256 if file.lfs else None, None if file.lfs else file.blob_id)
        for file in found
        if isinstance(file, RepoFile)
    }


def fetch(
    repository: str,
    revision: str,
    files: Mapping[str, Expected],
    done: Callable[[FileState], None],
    say: Callable[[str], None],
) -> None:
    """Brings files into the local cache, one after the other, and verifies each as it arrives.

    What is there already and right is kept; what is there and wrong is fetched again. Files that are complete stay if
    a later one fails, so that the same call goes on from there.

    Args:
        repository: Hub id.
        revision: Commit.
        files: What to fetch, by name in the repository.
        done: Told of each file that is there and right.
        say: Told, in words, of each file that is being fetched.

    Raises:
        HubUnreachable: the hub went away. RefinerError: the disk is too full, or a file arrived with other content.
    """
    wrong: list[str] = []
    for name, expected in files.items():
        state = _cached_state(repository, revision, name, expected)
        if state is not None and state.fault is None:
            done(state)
        else:
            wrong.append(name)
    _check_disk(sum(files[name].size for name in wrong))
    for number, name in enumerate(wrong, start=1):
        say(f"{number}/{len(wrong)} {name} ({human_size(files[name].size)})")
        state = _download(repository, revision, name, files[name])
        if state.fault:
            raise RefinerError(f"{name} arrived damaged ({state.fault}); the same command fetches it again")
        done(state)


def cache_folder() -> Path:
    """Where the local cache is (HF_HOME and HF_HUB_CACHE move it)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether the environment forbids to reach for the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def human_size(size: int) -> str:
    """Bytes in three figures or so."""
    for unit, amount in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= amount:
            return f"{size / amount:.3g} {unit}" if size < 999.5 * amount else f"{size / amount:.0f} {unit}"
    return f"{size} B"


def _cached_state(repository: str, revision: str, name: str, expected: Expected) -> FileState | None:
    path = cached_file(repository, revision, name)
    return None if path is None else _named(inspect(path.parent, path.name, expected), name)


def _download(repository: str, revision: str, name: str, expected: Expected) -> FileState:
    from huggingface_hub import constants, hf_hub_download

    there = cached_file(repository, revision, name) is not None
    with _hub_errors(repository, revision):
        path = Path(
            hf_hub_download(
                repository,
                name,
                revision=revision,
                cache_dir=constants.HF_HUB_CACHE,
                endpoint=constants.ENDPOINT,
                force_download=there,
            )
        )
    return _named(inspect(path.parent, path.name, expected), name)


def _named(state: FileState, name: str) -> FileState:
    return replace(state, name=name)


def _check_disk(needed: int) -> None:
    folder = cache_folder()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed and free < needed + _SPARE:
        raise RefinerError(
            f"{human_size(needed)} are to be fetched and {human_size(free)} are free in {existing}: make room, or set "
            "HF_HUB_CACHE to a folder on another disk"
        )


@contextmanager
def _hub_errors(repository: str, revision: str) -> Iterator[None]:
    """Whatever goes wrong with the hub is one error: its library raises those of three others beside its own."""
    from huggingface_hub import utils as errors  # where releases before 0.24 have them

    try:
        yield
    except CloseupError:
        raise
    except errors.GatedRepoError as problem:
        raise HubUnreachable(
            f"the hub gives {repository} only to those who accepted its terms: do so on its page, then `hf auth login`"
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise HubUnreachable(f"the hub has no {repository}, or hides it from you") from problem
    except errors.RevisionNotFoundError as problem:
        raise HubUnreachable(f"the hub's {repository} has no revision {revision}") from problem
    except errors.HFValidationError as problem:
        raise HubUnreachable(f"{repository!r} is no hub id of the form owner/name") from problem
    except Exception as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise HubUnreachable(f"the hub cannot be reached ({reason[:300]})") from problem
