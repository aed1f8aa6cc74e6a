# Weights: CreativeML Open RAIL++-M (Stable Diffusion x4 upscaler, Stability AI): it restricts uses; read it.
"""Stable Diffusion's x4 upscaler on each render by itself, shrunk first, in tiles.

    pip install 'closeup-ns[see3d]'
    --pipeline.refiner.kind command
    --pipeline.refiner.command.run "python examples/refiners/sd_x4.py --shrink 2 {input} {output}"

Not run with its weights here.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from request import parser, read, refine_each
from tiling import shrunk, to_picture, to_tensor, upscaled
from torch import Tensor

MULTIPLE = 8
"""Both sides of what the network is shown must be multiples of this."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default="stabilityai/stable-diffusion-x4-upscaler", help="folder or hub id")
    options.add_argument("--shrink", type=float, default=2.0, help="the render is shrunk by this before it is upscaled")
    options.add_argument("--noise", type=int, default=20, help="on the small picture, 0 to 350: more invents more")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--guidance", type=float, default=4.0)
    options.add_argument("--prompt", default="a sharp photograph, fine detail")
    chosen = options.parse_args()
    seed = int(read(chosen.input)["seed"])
    pipeline: Any = None
    if not chosen.dry_run:
        from diffusers import StableDiffusionUpscalePipeline

        dtype = torch.float16 if chosen.device.startswith("cuda") else torch.float32
        pipeline = StableDiffusionUpscalePipeline.from_pretrained(chosen.model, torch_dtype=dtype, use_safetensors=True)
        pipeline = pipeline.to(chosen.device)

    def network(small: Tensor) -> Tensor:
        if pipeline is None:
            return torch.nn.functional.interpolate(small, scale_factor=4, mode="bicubic")
        height, width = small.shape[2:]
        shown = torch.nn.functional.pad(small, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        made = pipeline(
            prompt=chosen.prompt, image=to_picture(shown), noise_level=chosen.noise, num_inference_steps=chosen.steps,
            guidance_scale=chosen.guidance, generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip
        return to_tensor(made)[:, :, : 4 * height, : 4 * width]

    def refine(render: Image.Image, _reference: Image.Image | None) -> Image.Image:
        return to_picture(upscaled(network, to_tensor(shrunk(render, chosen.shrink)), scale=4, tile=192, margin=32))

    refine_each(chosen, refine)


if __name__ == "__main__":
    main()
