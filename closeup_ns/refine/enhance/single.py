"""What enhancers have in common that ask a published diffusers pipeline about one picture at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhance.options import SDX4Config, SDXLConfig
from closeup_ns.refine.enhance.pictures import brought_back, planes
from closeup_ns.refine.libraries import torch_dtype
from closeup_ns.refine.published import Published, free
from closeup_ns.refine.refiner import GuideImage
from closeup_ns.refine.seeds import seeded

Config = TypeVar("Config", SDX4Config, SDXLConfig)


class SingleEnhancer(ABC, Generic[Config]):
    """Loads its pipeline at the first use and gives each picture a generator of its own."""

    name: ClassVar[str]
    frames: int = 1
    guided: bool = False
    loader: ClassVar[str]
    """Class of diffusers that loads the pipeline."""
    parts: ClassVar[dict[str, Any]] = {}
    """Further arguments of its ``from_pretrained``."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config: Config = config
        self.device = device
        self._pipeline: Any = None

    @classmethod
    @abstractmethod
    def fault(cls, config: Config) -> str | None:
        """What is wrong with the options themselves, in one line."""

    @classmethod
    @abstractmethod
    def published(cls, config: Config) -> Published:
        """The pipeline that the options name."""

    @abstractmethod
    def sharpened(
        self, pipeline: Any, image: Float[Tensor, "3 H W"], generator: torch.Generator
    ) -> Float[Tensor, "3 h w"] | str:
        """What the pipeline makes of one picture (float32, CPU), at any size of its shape; or why it makes none."""

    @classmethod
    def why_not(cls, config: Config) -> str | None:
        """Why it cannot run here, in one line; None where it can. Loads nothing."""
        return cls.fault(config) or cls.published(config).why_not()

    def enhance(
        self, images: Sequence[Float[Tensor, "H W 3"]], references: Sequence[GuideImage], seed: int
    ) -> list[Float[Tensor, "H W 3"] | str]:
        """Each picture by itself; see ``Enhancer.enhance``. The references are not looked at."""
        del references
        pipeline = self._loaded()
        results: list[Tensor | str] = []
        for index, image in enumerate(images):
            made = self.sharpened(pipeline, planes(image), seeded(seed, str(index)))
            results.append(made if isinstance(made, str) else brought_back(made, image))
        return results

    def close(self) -> None:
        """Frees the networks; the next ``enhance`` loads them again."""
        self._pipeline = None
        free(self.device)

    def _loaded(self) -> Any:
        if self._pipeline is None:
            fault = self.fault(self.config)
            if fault is not None:
                raise RefinerError(fault)
            dtype = torch_dtype(self.config.dtype, self.device)
            self._pipeline = self.published(self.config).load(self.loader, dtype, self.device, **self.parts)
        return self._pipeline
