"""SDXL image-to-image at low strength as enhancer: the end of the denoising is done anew."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.enhance.options import SDXLConfig
from closeup_ns.refine.enhance.pictures import in_tiles, size_fault
from closeup_ns.refine.enhance.single import SingleEnhancer
from closeup_ns.refine.published import Published, ask
from closeup_ns.refine.sizes import fit_long_side

OPTION = "--pipeline.refiner.enhance.sdxl"


def why_not(config: SDXLConfig, device: torch.device) -> str | None:
    """Why it cannot run here, and what to do, in one line; None where it can. Loads nothing."""
    del device  # slow on a CPU, not impossible
    return SDXLEnhancer.why_not(config)


class SDXLEnhancer(SingleEnhancer[SDXLConfig]):
    """Each view by itself: small ones enlarged to the network's size, large ones in tiles of it."""

    name: ClassVar[str] = "sdxl"
    loader: ClassVar[str] = "StableDiffusionXLImg2ImgPipeline"
    # An invisible watermark would be trained into the scene.
    parts: ClassVar[dict[str, Any]] = {"add_watermarker": False}

    @classmethod
    def fault(cls, config: SDXLConfig) -> str | None:
        if not 0.0 < config.strength <= 1.0:
            return f"{OPTION}.strength must be more than 0 and at most 1, not {config.strength}"
        if int(config.steps * config.strength) < 1:
            return (
                f"{OPTION}: {config.steps} steps at strength {config.strength} leave no step to take; "
                "their product must be at least 1"
            )
        return size_fault(f"{OPTION}.size", config.size)

    @classmethod
    def published(cls, config: SDXLConfig) -> Published:
        # A base model has the same parts as a refiner and one text tower more, which the same class takes.
        classes = (cls.loader, "StableDiffusionXLPipeline")
        return Published(config.model, config.revision, f"{OPTION}.model", classes=classes)

    def sharpened(
        self, pipeline: Any, image: Float[Tensor, "3 H W"], generator: torch.Generator
    ) -> Float[Tensor, "3 h w"] | str:
        if max(image.shape[1:]) < self.config.size:
            image = fit_long_side(image, self.config.size, enlarge=True)

        def redrawn(tile: Float[Tensor, "3 h w"]) -> Tensor | str:
            return ask(
                pipeline,
                prompt=self.config.prompt,
                image=tile[None],
                strength=self.config.strength,
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                generator=generator,
                output_type="np",
            )

        return in_tiles(image, self.config.size, 1, redrawn)
