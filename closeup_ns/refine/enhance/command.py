"""Any external program as enhancer: a folder of pictures goes in, one of the same names comes out.

The input folder holds nothing but the pictures, ``view_000.png`` and so on, because tools for many pictures take every
file of a folder. What they write may be a whole multiple of a picture's size, as upscalers give it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.refine.enhance.options import CommandEnhancerConfig
from closeup_ns.refine.enhance.pictures import brought_back
from closeup_ns.refine.external import Program
from closeup_ns.refine.refiner import GuideImage

OPTION = "--pipeline.refiner.enhance.command.run"


def why_not(config: CommandEnhancerConfig, device: torch.device) -> str | None:
    """Why the command cannot be run here, and what to do, in one line; None where it can. Starts nothing."""
    del device  # the program's own affair
    return Program(config.run, config.timeout, OPTION).why_not()


class CommandEnhancer:
    """Hands pictures to a program that the user named. It is not told the seed: its randomness is its own affair."""

    name = "command"
    guided = False

    def __init__(self, config: CommandEnhancerConfig, device: torch.device) -> None:
        del device  # the program's own affair
        self.frames = config.frames
        self._program = Program(config.run, config.timeout, OPTION)

    def enhance(
        self, images: Sequence[Float[Tensor, "H W 3"]], references: Sequence[GuideImage], seed: int
    ) -> list[Float[Tensor, "H W 3"] | str]:
        """All pictures in one run of the program; see ``Enhancer.enhance``.

        Raises:
            RefinerError: the program cannot be run, takes too long, or ends with an error.
        """
        del references, seed
        files = {f"view_{index:03d}.png": image for index, image in enumerate(images)}
        made = self._program.treat(
            files, {name: (image.shape[0], image.shape[1]) for name, image in files.items()}, True
        )
        return [
            result if isinstance(result, str) else brought_back(result.permute(2, 0, 1), image)
            for result, image in zip((made[name] for name in files), images, strict=True)
        ]

    def close(self) -> None:
        """Nothing is kept between two runs."""
