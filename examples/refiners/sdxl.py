# Weights: CreativeML Open RAIL++-M (SDXL 1.0, Stability AI): it restricts uses; read it on the model's page.
"""SDXL image-to-image at low strength on each render by itself.

    pip install 'closeup-ns[see3d]'
    --pipeline.refiner.kind command
    --pipeline.refiner.command.run "python examples/refiners/sdxl.py {input} {output}"

Not run with its weights here.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from request import multiple_of, parser, read, refine_each


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", default="stabilityai/stable-diffusion-xl-refiner-1.0", help="folder or hub id")
    options.add_argument("--strength", type=float, default=0.25, help="share of the denoising done anew, 0 to 1")
    options.add_argument("--steps", type=int, default=40, help="of the whole schedule, of which `strength` are taken")
    options.add_argument("--guidance", type=float, default=5.0)
    options.add_argument("--prompt", default="a sharp photograph, fine detail")
    options.add_argument("--size", type=int, default=1024, help="longer side that the network sees, pixels")
    chosen = options.parse_args()
    seed = int(read(chosen.input)["seed"])
    pipeline: Any = None
    if not chosen.dry_run:
        from diffusers import AutoPipelineForImage2Image

        dtype = torch.float16 if chosen.device.startswith("cuda") else torch.float32
        pipeline = AutoPipelineForImage2Image.from_pretrained(chosen.model, torch_dtype=dtype, use_safetensors=True)
        pipeline = pipeline.to(chosen.device)

    def refine(render: Image.Image, _reference: Image.Image | None) -> Image.Image:
        enlarged = tuple(round(side * chosen.size / max(render.size)) for side in render.size)
        shown = render.resize(multiple_of((enlarged[0], enlarged[1]), 64, chosen.size), Image.Resampling.BICUBIC)
        if pipeline is None:
            return shown
        return pipeline(
            prompt=chosen.prompt, image=shown, strength=chosen.strength, num_inference_steps=chosen.steps,
            guidance_scale=chosen.guidance, generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip

    refine_each(chosen, refine)


if __name__ == "__main__":
    main()
