"""See3D's own stage from 512 to 1024 pixels as enhancer: the views of a pass together, guided by the references.

Its visual condition is the picture itself, clean, and not a warp with holes (dossier on See3D, 2.8): so all of it
counts as known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.enhance.options import See3DSRConfig
from closeup_ns.refine.enhance.pictures import MULTIPLE, OVERLAP, brought_back, planes, size_fault
from closeup_ns.refine.guides import contained
from closeup_ns.refine.libraries import out_of_memory, torch_dtype
from closeup_ns.refine.published import free, in_one_line
from closeup_ns.refine.refiner import GuideImage
from closeup_ns.refine.see3d import layout
from closeup_ns.refine.seeds import seeded
from closeup_ns.refine.sizes import blend, cut, fit_long_side, tiles

OPTION = "--pipeline.refiner.enhance.see3d-sr"


def why_not(config: See3DSRConfig, device: torch.device) -> str | None:
    """Why it cannot run here, and what to do, in one line; None where it can. Reads no more than headers."""
    return _fault(config) or layout.why_not(config, device)


def _fault(config: See3DSRConfig) -> str | None:
    if config.frames < 2:
        return f"{OPTION}.frames must be at least 2, a reference and a view, not {config.frames}"
    return size_fault(f"{OPTION}.size", config.size)


class See3DSREnhancer:
    """One joint pass over all pictures that it is given, for each tile of them."""

    name = "see3d-sr"
    guided = True

    def __init__(self, config: See3DSRConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.frames = config.frames
        self._pipeline: Any = None

    def enhance(
        self, images: Sequence[Float[Tensor, "H W 3"]], references: Sequence[GuideImage], seed: int
    ) -> list[Float[Tensor, "H W 3"] | str]:
        """Pictures of one size together; see ``Enhancer.enhance``.

        Raises:
            RefinerError: there is no reference, or the weights cannot be loaded; RefinerOutOfMemory where they, or a
                pass, do not fit.
        """
        if not references:
            raise RefinerError("See3D's SR stage needs at least one reference: the round has no anchors")
        pipeline = self._loaded()
        results: dict[int, Tensor | str] = {}
        for size in dict.fromkeys(image.shape for image in images):
            alike = [index for index, image in enumerate(images) if image.shape == size]
            made = self._together(pipeline, {index: images[index] for index in alike}, references, seed)
            results.update(made)
        return [results[index] for index in range(len(images))]

    def close(self) -> None:
        """Frees the networks; the next ``enhance`` loads them again."""
        self._pipeline = None
        free(self.device)

    def _loaded(self) -> Any:
        if self._pipeline is None:
            fault = _fault(self.config)
            if fault is not None:
                raise RefinerError(fault)
            layout.require_packages()
            from closeup_ns.refine.see3d.pipeline import See3DPipeline

            self._pipeline = See3DPipeline.from_pretrained(
                self.config.weights,
                unet="SR",
                revision=self.config.revision,
                dtype=torch_dtype(self.config.dtype, self.device),
                device=self.device,
            )
            self._pipeline.set_progress_bar_config(disable=True)
        return self._pipeline

    def _together(
        self, pipeline: Any, images: dict[int, Tensor], references: Sequence[GuideImage], seed: int
    ) -> dict[int, Tensor | str]:
        """One joint pass per tile; larger pictures than the network's are cut, smaller ones enlarged."""
        targets = {index: self._enlarged(planes(image)) for index, image in images.items()}
        guides = [planes(guide.image) for guide in references]
        height, width = next(iter(targets.values())).shape[1:]
        windows = tiles(height, width, self.config.size, self.config.size // OVERLAP, MULTIPLE)
        pieces = []
        for number, tile in enumerate(windows):
            shown = torch.stack([cut(target, tile) for target in targets.values()])
            beside = torch.stack([contained(guide, tile.height, tile.width) for guide in guides])
            names = [guide.name for guide in references] + [f"picture {index}" for index in targets]
            generators = [seeded(seed, name, f"tile {number}") for name in names]
            pieces.append(self._asked(pipeline, beside, shown, generators))
        results: dict[int, Tensor | str] = {}
        for row, (index, image) in enumerate(images.items()):
            parts = [piece[row] for piece in pieces]
            if not all(bool(part.isfinite().all()) for part in parts):
                results[index] = "the network returned NaN or infinite pixels: try dtype bf16 or fp32"
            else:
                results[index] = brought_back(blend(windows, parts, height, width), image)
        return results

    def _enlarged(self, image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 h w"]:
        smaller = max(image.shape[1:]) < self.config.size
        return fit_long_side(image, self.config.size, enlarge=True) if smaller else image

    def _asked(
        self,
        pipeline: Any,
        references: Float[Tensor, "R 3 h w"],
        pictures: Float[Tensor, "N 3 h w"],
        generators: list[torch.Generator],
    ) -> Float[Tensor, "N 3 h w"]:
        try:
            output = pipeline(
                references,
                pictures,
                torch.ones_like(pictures[:, 0], dtype=torch.bool),
                steps=self.config.steps,
                guidance=self.config.guidance,
                generator=generators,
            )
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            raise RefinerOutOfMemory(f"See3D's SR stage: {in_one_line(problem)}") from problem
        return output.images.float().cpu()
