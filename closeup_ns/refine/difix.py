"""A one-step fixer as refiner: any diffusers pipeline that turns a flawed render, and perhaps a reference, into a
clean picture. The conventions are those of Difix (Wu et al., CVPR 2025): one step at t = 199, no guidance, one
reference; its weights are NVIDIA's, for non-commercial use, and none of its code is here.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from closeup_ns.errors import RefinerError, RefinerOutOfMemory
from closeup_ns.refine.color import match_wavelet
from closeup_ns.refine.filters import opened
from closeup_ns.refine.guides import contained, guide_distances
from closeup_ns.refine.libraries import torch_dtype
from closeup_ns.refine.options import DifixRefinerConfig
from closeup_ns.refine.published import Published, ask, free
from closeup_ns.refine.refiner import GuideImage, RefinedView, RefineRequest
from closeup_ns.refine.results import failed, generated, render_image
from closeup_ns.refine.seeds import seeded
from closeup_ns.refine.sizes import fit_long_side, pad_to, resized

OPTION = "--pipeline.refiner.difix.model"
TRUST = "--pipeline.refiner.difix.trust-remote-code"
MULTIPLE = 64
"""Sides of what the network sees, pixels: 8 in the VAE times 8 in the UNet."""


def why_not(config: DifixRefinerConfig, device: torch.device) -> str | None:
    """Why it cannot run here, and what to do, in one line; None where it can. Looks at packages and files only."""
    del device  # slow on a CPU, not impossible
    return _fault(config) or _published(config).why_not()


def _fault(config: DifixRefinerConfig) -> str | None:
    """What is wrong with the options themselves."""
    if not config.model:
        return (
            f"{OPTION} is empty: name a local folder or a hub id, such as nvidia/difix_ref (for non-commercial use; "
            f"its code needs {TRUST} True)"
        )
    if config.size < MULTIPLE:
        return f"--pipeline.refiner.difix.size must be at least {MULTIPLE} pixels, not {config.size}"
    return None


def _published(config: DifixRefinerConfig) -> Published:
    return Published(config.model, config.revision, OPTION, trusted=config.trust_remote_code, trust_option=TRUST)


class DifixRefiner:
    """Asks the pipeline once per view, with the nearest reference where it takes one."""

    name = "difix"
    generates = True
    frames = 1

    def __init__(self, config: DifixRefinerConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._pipeline: Any = None

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """One fixed render per view, with the render's own low frequencies where photographs back them: no colour
        moves there, and what is wrong elsewhere may be mended at every scale.

        What the pipeline cannot do with a view is that view's failure.

        Raises:
            RefinerError: the pipeline cannot be loaded, or is none that takes and gives a picture.
        """
        pipeline = self._loaded()
        accepts = set(inspect.signature(pipeline.__call__).parameters)
        if "image" not in accepts:
            raise RefinerError(f"{OPTION} {self.config.model} is a {type(pipeline).__name__}, which takes no image=")
        names = list(request.names) or [f"view_{index:03d}" for index in range(len(request.views))]
        guides = self._guides(request) if "ref_image" in accepts and self.config.use_reference else []
        nearest: list[GuideImage | None] = [None] * len(names)
        if guides:
            closest = guide_distances(request.views, request.renders, guides).argmin(1)
            nearest = [guides[int(index)] for index in closest]
        return [
            self._fix(pipeline, accepts, request, index, guide, seeded(request.seed, name))
            for index, (guide, name) in enumerate(zip(nearest, names, strict=True))
        ]

    def close(self) -> None:
        """Frees the networks; the next ``refine`` loads them again."""
        self._pipeline = None
        free(self.device)

    def _loaded(self) -> Any:
        if self._pipeline is None:
            fault = _fault(self.config)
            if fault is not None:
                raise RefinerError(fault)
            dtype = torch_dtype(self.config.dtype, self.device)
            self._pipeline = _published(self.config).load("DiffusionPipeline", dtype, self.device)
        return self._pipeline

    @staticmethod
    def _guides(request: RefineRequest) -> list[GuideImage]:
        """What may be a reference: the anchors; where there are none the photographs, which are anchors' originals."""
        photographs = [
            GuideImage(f"photograph {index}", observation.view, observation.color.permute(1, 2, 0), True)
            for index, observation in enumerate(request.references)
        ]
        return list(request.anchors) or photographs

    def _fix(
        self,
        pipeline: Any,
        accepts: set[str],
        request: RefineRequest,
        index: int,
        guide: GuideImage | None,
        generator: torch.Generator,
    ) -> RefinedView:
        render = request.renders[index]
        original = render_image(render).permute(2, 0, 1).float().cpu()
        shown, crop = pad_to(fit_long_side(original, self.config.size), MULTIPLE)
        options: dict[str, Any] = {
            "prompt": self.config.prompt,
            "num_inference_steps": 1,
            "timesteps": [self.config.timestep],
            "guidance_scale": 0.0,
            "strength": 1.0,  # stock image-to-image pipelines would otherwise leave out a share of the one step
            "generator": generator,
            "output_type": "np",  # PIL would hide NaN in its bytes
        }
        if guide is not None:
            options["ref_image"] = _pil(self._reference(guide, crop.height, crop.width))
        given = {name: value for name, value in options.items() if name in accepts}
        try:
            picture = ask(pipeline, image=_pil(shown), **given)
        except RefinerOutOfMemory as problem:
            return failed(render, f"out of GPU memory at {shown.shape[2]} x {shown.shape[1]} pixels: {problem}")
        if isinstance(picture, str):
            return failed(render, picture)
        if picture.shape != shown.shape:
            sizes = f"{picture.shape[2]} x {picture.shape[1]} for {shown.shape[2]} x {shown.shape[1]}"
            return failed(render, f"{type(pipeline).__name__} gave {sizes} pixels")
        fixed = resized(crop(picture).clamp(0, 1), original.shape[1], original.shape[2])
        known = opened(request.masks[index].dense.cpu())
        image = match_wavelet(fixed, original, trusted=known).clamp(0, 1).permute(1, 2, 0).contiguous()
        notes: dict[str, float | str] = {"network_size": f"{shown.shape[2]} x {shown.shape[1]}"}
        if guide is not None:
            notes["reference"] = guide.name
        return generated(render, request.masks[index].dense, image, notes)

    @staticmethod
    def _reference(guide: GuideImage, height: int, width: int) -> Float[Tensor, "3 h w"]:
        """The guide at the size of the shrunk render, then continued as the render is."""
        image = torch.nan_to_num(guide.image).clamp(0, 1).permute(2, 0, 1).float().cpu()
        return pad_to(contained(image, height, width), MULTIPLE)[0]


def _pil(image: Float[Tensor, "3 H W"]) -> Image.Image:
    """What every pipeline takes, whatever else it takes."""
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))
