"""`closeup-gs weights`: the generators' weights, fetched or verified; or tiny random ones to try everything with."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION
from closeup_ns.refine.see3d import layout, published
from closeup_ns.refine.see3d.layout import BELOW, UNETS, UNetName
from closeup_ns.refine.see3d.published import Inspection
from closeup_ns.weights import hub
from closeup_ns.weights.files import fault_of


@dataclass
class See3DWeights:
    """Fetch or verify See3D's weights: every file with its size and checksum, and where the licence is said.

    Fetches into the local Hugging Face cache unless a folder is named; what is there already is kept. The exit code is
    1 where anything is missing or wrong.
    """

    unets: tuple[UNetName, ...] = ("sparse",)
    """sparse: refines from two or more references. single: from one. SR: the see3d-sr enhancer's."""
    folder: Path | None = None
    """Verify this folder instead: it holds checkpoint/MVD_weights, or is MVD_weights."""
    verify: bool = False
    """Fetch nothing: only look at what is here. Needs no network if it was verified before."""
    offline: bool = False
    """Never reach for the hub. HF_HUB_OFFLINE=1 does the same."""
    repository: str = SEE3D_HUB
    """Hub id."""
    revision: str = SEE3D_REVISION
    """Commit. The pinned one is the one that this loader was written for."""

    def main(self) -> None:
        """Do it, print the table, and leave with an error if files are missing or wrong.

        Raises:
            RefinerError: anything is missing or wrong; or the hub cannot be reached.
        """
        if not self.unets:
            raise RefinerError(f"--unets takes at least one of {', '.join(UNETS)}")
        hub.require()
        inspection = self._fetched() if self._may_fetch() else self._verified()
        self._print(inspection)
        if not inspection.complete:
            self._explain(inspection.folder)
            count = len(inspection.faults)
            raise RefinerError(f"{count} of {len(inspection.states)} files are missing or wrong in {inspection.folder}")

    def _may_fetch(self) -> bool:
        return self.folder is None and not self.verify and self._online()

    def _online(self) -> bool:
        return not self.offline and not hub.is_offline()

    def _fetched(self) -> Inspection:
        try:
            return published.fetch(self.repository, self.revision, self.unets, lambda line: print(line, flush=True))
        except RefinerError as problem:
            kept = self._kept()
            self._explain(Path("See3D") / BELOW)
            raise RefinerError(f"{problem}. {kept}") from problem
        except KeyboardInterrupt:
            print(f"\n{self._kept()}", file=sys.stderr)
            raise

    def _kept(self) -> str:
        """What an interrupted download has left, in words."""
        folder = layout.cached_folder(self.repository, self.revision)
        names = layout.files_for(self.unets)
        whole = [] if folder is None else [name for name in names if fault_of(folder / name) is None]
        return (
            f"{len(whole)} of {len(names)} files are complete and kept in {hub.cache_folder()}; "
            "the same command goes on from there"
        )

    def _verified(self) -> Inspection:
        try:
            folder = layout.find(self.folder if self.folder is not None else self.repository, self.revision)
        except RefinerError:
            self._explain((self.folder or Path("See3D")) / BELOW)
            if hub.is_offline():
                print("HF_HUB_OFFLINE is set, so nothing is fetched.", file=sys.stderr)
            raise
        return published.verify(folder, self.repository, self.revision, self.unets, online=self._online())

    def _print(self, inspection: Inspection) -> None:
        width = max(len(state.name) for state in inspection.states)
        print(f"See3D's weights ({', '.join(self.unets)}) in {inspection.folder}")
        for state in inspection.states:
            size = "-" if state.size is None else hub.human_size(state.size)
            proof = "as published" if state.proven else "whole"
            checksum = (state.sha256 or "-")[:12]
            print(f"  {state.name:<{width}}  {size:>8}  {checksum:<12}  {state.fault or proof}")
        total = sum(state.size or 0 for state in inspection.states)
        print(f"  {len(inspection.states)} files, {hub.human_size(total)}; held against {inspection.against}")
        for line in licence_lines(self.repository, inspection.folder):
            print(line)
        if inspection.complete and not all(state.proven for state in inspection.states):
            print("whole: by size and header; whether it is the published one shows where the hub can be reached.")

    def _explain(self, folder: Path) -> None:
        """What has to be in ``folder``, on standard error."""
        for line in instructions(self.repository, self.revision, self.unets, folder):
            print(line, file=sys.stderr)


@dataclass
class TinyWeights:
    """Write small random towers in the published layout: all can be run with them, nothing gets better by them."""

    folder: Path
    """A new or empty folder; name it as --pipeline.refiner.see3d.weights."""
    unets: tuple[UNetName, ...] = UNETS
    """Which of the three networks."""
    seed: int = 0
    """The same seed writes the same bytes."""

    def main(self) -> None:
        """Write them, whole or not at all.

        Raises:
            RefinerError: the folder holds something, or packages are missing.
        """
        import torch

        from closeup_ns.refine.see3d.tiny import write_tiny_weights

        layout.require_packages()
        folder = self.folder.expanduser()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RefinerError(f"{folder} is not an empty folder: tiny weights are written to a new one only")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            written = write_tiny_weights(
                Path(beside) / "tiny", torch.Generator().manual_seed(self.seed), unets=self.unets
            )
            os.replace(written, folder)
        print(f"{folder}: tiny random weights of {', '.join(self.unets)}. Use them with")
        print(f"--pipeline.refiner.kind see3d --pipeline.refiner.see3d.weights {folder}")


@dataclass
class Weights:
    """The generators' weights: fetch them, verify them, or write tiny ones to try everything with."""

    model: tyro.conf.OmitArgPrefixes[
        Annotated[See3DWeights, tyro.conf.subcommand("see3d", prefix_name=False)]
        | Annotated[TinyWeights, tyro.conf.subcommand("tiny", prefix_name=False)]
    ]
    """Whose."""

    def main(self) -> None:
        """What was chosen."""
        self.model.main()


def licence_lines(repository: str, folder: Path) -> list[str]:
    """Where the licence is said, without a judgement."""
    return [
        "Licence: See3D's code repository (baaivision/See3D) has none; none of its code is in closeup-ns.",
        f"  The weights' is what their model card says, huggingface.co/{repository}; {published.licence(folder)}.",
        "  They appear to be derived from Stable Diffusion 2.1: its licence (CreativeML Open RAIL++-M) restricts uses.",
    ]


def instructions(repository: str, revision: str, unets: Sequence[UNetName], folder: Path) -> list[str]:
    """What has to be in ``folder`` (MVD_weights), and how it gets there without a network of one's own."""
    others = [f"*/unet/{unet}/*" for unet in UNETS if unet not in unets]
    chosen = " ".join(unets)
    return [
        "What has to be where:",
        f"  {folder}/",
        *(f"    {name}" for name in layout.files_for(unets)),
        f"`{layout.fetch_command(repository, revision)} --unets {chosen}` fetches it where the hub can be reached.",
        "On another machine that reaches it:",
        f"  python -c \"from huggingface_hub import snapshot_download as s; s('{repository}', revision='{revision}', "
        f"local_dir='See3D', allow_patterns=['{BELOW}/*', '{published.CARD}'], ignore_patterns={['*.bin', *others]})\"",
        "then bring the folder See3D here, and",
        f"  closeup-gs weights see3d --unets {chosen} --folder See3D",
        "  ns-train closeup-gs --pipeline.refiner.see3d.weights See3D ...",
    ]
