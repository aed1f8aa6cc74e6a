"""`closeup-gs weights`: See3D's published weights, fetched into the local Hugging Face cache, or looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import SEE3D_HUB
from closeup_ns.refine.see3d import weights
from closeup_ns.refine.see3d.weights import UNetName


@dataclass
class Weights:
    """Fetch See3D's weights at the pinned commit, or see whether a folder holds them; and where the licence is said.

    What is there already is kept: a command that was stopped goes on from there.
    """

    model: Annotated[Literal["see3d"], tyro.conf.Positional] = "see3d"
    """Whose weights; the other refiners have none of ours."""
    unets: tuple[UNetName, ...] = ("sparse",)
    """sparse: refines from two or more references. single: from one. SR: sharpens (--pipeline.refiner.enhance.kind)."""
    folder: Path | None = None
    """Fetch nothing; look at this folder. It holds checkpoint/MVD_weights, or is MVD_weights."""

    def main(self) -> None:
        """Fetch or look, and print where they are."""
        weights.require_packages()
        folder = weights.fetch(self.unets) if self.folder is None else weights.weights_folder(self.folder)
        found = weights.faults(folder, self.unets)
        if found:
            raise RefinerError(
                f"{folder} lacks {'; '.join(found)}. `closeup-gs weights see3d --unets {' '.join(self.unets)}` fetches "
                "them where the hub can be reached"
            )
        print(f"See3D's weights ({', '.join(self.unets)}): {folder}")
        print("Licence: See3D's code repository (baaivision/See3D) has none; none of its code is in closeup-ns.")
        print(f"  The weights' is what their model card says: https://huggingface.co/{SEE3D_HUB}.")
        print(
            "  They appear to be derived from Stable Diffusion 2.1, whose licence (CreativeML Open RAIL++-M) restricts"
        )
        print("  uses.")
