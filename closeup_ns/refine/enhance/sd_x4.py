"""Stable Diffusion's x4 upscaler as enhancer: the view is shrunk, and drawn anew at four times that size."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.enhance.options import SDX4Config
from closeup_ns.refine.enhance.pictures import in_tiles, size_fault
from closeup_ns.refine.enhance.single import SingleEnhancer
from closeup_ns.refine.published import Published, ask
from closeup_ns.refine.sizes import resized

OPTION = "--pipeline.refiner.enhance.sd-x4"
SCALE = 4
MAX_NOISE = 350
"""The largest noise level that the network was trained with (its ``max_noise_level``)."""


def why_not(config: SDX4Config, device: torch.device) -> str | None:
    """Why it cannot run here, and what to do, in one line; None where it can. Loads nothing."""
    del device  # slow on a CPU, not impossible
    return SDX4Enhancer.why_not(config)


class SDX4Enhancer(SingleEnhancer[SDX4Config]):
    """Each view by itself; large ones in tiles."""

    name: ClassVar[str] = "sd-x4"
    loader: ClassVar[str] = "StableDiffusionUpscalePipeline"

    @classmethod
    def fault(cls, config: SDX4Config) -> str | None:
        if not 0.0 < config.shrink <= 1.0:
            return f"{OPTION}.shrink must be more than 0 and at most 1, not {config.shrink}"
        if not 0 <= config.noise_level <= MAX_NOISE:
            return f"{OPTION}.noise-level must be from 0 to {MAX_NOISE}, not {config.noise_level}"
        if config.steps < 1:
            return f"{OPTION}.steps must be at least 1, not {config.steps}"
        return size_fault(f"{OPTION}.tile", config.tile)

    @classmethod
    def published(cls, config: SDX4Config) -> Published:
        return Published(config.model, config.revision, f"{OPTION}.model", classes=(cls.loader,))

    def sharpened(
        self, pipeline: Any, image: Float[Tensor, "3 H W"], generator: torch.Generator
    ) -> Float[Tensor, "3 h w"] | str:
        height, width = image.shape[1:]
        small = resized(image, max(1, round(height * self.config.shrink)), max(1, round(width * self.config.shrink)))

        def upscaled(tile: Float[Tensor, "3 h w"]) -> Tensor | str:
            return ask(
                pipeline,
                prompt=self.config.prompt,
                image=tile[None],
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                noise_level=self.config.noise_level,
                generator=generator,
                output_type="np",
            )

        return in_tiles(small, self.config.tile, SCALE, upscaled)
