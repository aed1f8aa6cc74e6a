"""The published files of See3D, fetched from the hub or verified where they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from closeup_ns.errors import RefinerError
from closeup_ns.refine.see3d import layout
from closeup_ns.refine.see3d.layout import BELOW, OPTIONAL_FILES, UNetName
from closeup_ns.refine.see3d.schedule import SCHEDULER_FILE, check_scheduler
from closeup_ns.refine.see3d.unet import CONFIG_FILE, WEIGHTS_FILE, check_unet, read_config
from closeup_ns.weights import hub
from closeup_ns.weights.files import (
    MANIFEST,
    Expected,
    FileState,
    Manifest,
    inspect,
    read_manifest,
    write_manifest,
)

CARD = "README.md"
"""The model card, at the top of the hub's repository."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a folder."""

    folder: Path
    """MVD_weights."""
    states: tuple[FileState, ...]
    """Each file that is needed, and the optional ones that are there."""
    against: str
    """What the files were held against."""

    @property
    def complete(self) -> bool:
        """Whether every file is there and nothing is known to be wrong with it."""
        return all(state.fault is None for state in self.states)

    @property
    def faults(self) -> list[FileState]:
        """Those with which something is wrong."""
        return [state for state in self.states if state.fault is not None]


def fetch(repository: str, revision: str, unets: Sequence[UNetName], say: Callable[[str], None]) -> Inspection:
    """Brings what ``unets`` need into the local Hugging Face cache, verifies it, and writes the manifest beside it.

    Args:
        repository: Hub id.
        revision: Commit.
        unets: Which networks.
        say: Told what is being fetched.

    Raises:
        HubUnreachable: no hub, also in the middle; what is complete stays. RefinerError: the repository lacks a file,
            the disk is too full, or a file arrived damaged.
    """
    wanted = layout.files_for(unets)
    names = [CARD, *(f"{BELOW}/{name}" for name in (*OPTIONAL_FILES, *wanted))]
    published = hub.published_files(repository, revision, names)
    lacking = [name for name in wanted if f"{BELOW}/{name}" not in published]
    if lacking:
        raise RefinerError(f"{repository} at revision {revision[:12]} has no {', '.join(lacking)} below {BELOW}")
    found: dict[str, FileState] = {}

    def done(state: FileState) -> None:
        found[state.name.removeprefix(f"{BELOW}/")] = state

    # Small files first: if the hub goes away, what is left to do is one large one.
    ordered = {name: published[name] for name in sorted(published, key=lambda name: published[name].size)}
    hub.fetch(repository, revision, ordered, done, say)
    folder = layout.find(repository, revision)
    states = [replace(found[name], name=name) for name in (*wanted, *OPTIONAL_FILES) if name in found]
    inspection = Inspection(folder, _judged(folder, states, unets), "the hub's sizes and checksums")
    _record(inspection, repository, revision)
    return inspection


def verify(folder: Path, repository: str, revision: str, unets: Sequence[UNetName], *, online: bool) -> Inspection:
    """Looks at every file that ``unets`` need, and reads all of it.

    Files are held against the manifest beside them; those that it does not know, against what the hub says of them; and
    where that cannot be asked, against their own headers.

    Args:
        folder: MVD_weights.
        repository: Hub id that the files are of.
        revision: Commit that the files are of.
        unets: Which networks.
        online: Whether the hub may be asked.

    Raises:
        RefinerError: the manifest is unreadable.
    """
    wanted = layout.files_for(unets)
    names = [*wanted, *(name for name in OPTIONAL_FILES if (folder / name).is_file())]
    manifest = read_manifest(folder)
    expected: dict[str, Expected] = {}
    sources = []
    if manifest is not None and (manifest.repository, manifest.revision) == (repository, revision):
        expected = {name: manifest.files[name] for name in names if name in manifest.files}
        sources.append(MANIFEST)
    elif manifest is not None:
        sources.append(f"not {MANIFEST}, which is about {manifest.repository} at {manifest.revision[:12]}")
    unknown = [name for name in names if name not in expected]
    asked = False
    if unknown and online:
        try:
            answer = hub.published_files(repository, revision, [f"{BELOW}/{name}" for name in unknown])
            expected.update({name.removeprefix(f"{BELOW}/"): row for name, row in answer.items()})
            sources.append("the hub's sizes and checksums")
            asked = True
        except hub.HubUnreachable as problem:
            sources.append(f"their own headers, since {problem}")
    elif unknown:
        sources.append("their own headers")
    states = [inspect(folder, name, expected.get(name)) for name in names]
    inspection = Inspection(folder, _judged(folder, states, unets), "; ".join(sources))
    if asked and inspection.complete:
        _record(inspection, repository, revision)
    return inspection


def _judged(folder: Path, states: Sequence[FileState], unets: Sequence[UNetName]) -> tuple[FileState, ...]:
    """The states, with what makes a file that is whole one of another model: what the loader would say of it."""
    checks: dict[str, Callable[[], None]] = {
        f"{layout.unet_folder(unet)}/{WEIGHTS_FILE}": partial(check_unet, folder / layout.unet_folder(unet))
        for unet in unets
    }
    checks[SCHEDULER_FILE] = lambda: check_scheduler(read_config(folder / SCHEDULER_FILE))
    whole = {state.name for state in states if state.fault is None}
    faults: dict[str, str] = {}
    for name, check in checks.items():
        parts = {name, name.replace(WEIGHTS_FILE, CONFIG_FILE)}
        try:
            if parts <= whole:
                check()
        except RefinerError as problem:
            faults[name] = str(problem).removeprefix(f"{folder / name}: ")
    return tuple(replace(state, fault=state.fault or faults.get(state.name)) for state in states)


def licence(folder: Path) -> str:
    """What the model card beside the files says of the licence, in words."""
    card = folder.parents[1] / CARD if folder.parts[-2:] == Path(BELOW).parts else folder / CARD
    try:
        text = card.read_text(encoding="utf8")
    except (OSError, ValueError):
        return "the card is not among these files"
    front = re.match(r"---\s*\n(.*?)\n---", text, flags=re.DOTALL)
    said = re.findall(r"^license(?:_name)?:[ \t]*(\S.*?)[ \t]*$", front.group(1) if front else "", flags=re.MULTILINE)
    return f"the card here says: {', '.join(said)}" if said else f"the card here names none ({card})"


def _record(inspection: Inspection, repository: str, revision: str) -> None:
    """Adds what was proven to the manifest. A folder that cannot be written is verified all the same."""
    proven = {
        state.name: Expected(state.size, state.sha256)
        for state in inspection.states
        if state.proven and state.size is not None
    }
    try:
        before = read_manifest(inspection.folder)
    except RefinerError:
        before = None
    if before is not None and (before.repository, before.revision) == (repository, revision):
        proven = {**before.files, **proven}
    try:
        write_manifest(inspection.folder, Manifest(repository, revision, proven))
    except OSError:
        return
