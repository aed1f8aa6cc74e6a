# Weights: NVIDIA's licence, non-commercial (nvidia/difix_ref): read it on the model's page.
"""Difix, a one-step fixer, on each render with its nearest reference (Wu et al., CVPR 2025).

Its pipeline is code that comes with its repository: clone that, read it, and name its folder `src`.

    pip install 'closeup-ns[see3d]'
    --pipeline.refiner.kind command
    --pipeline.refiner.command.run "python examples/refiners/difix.py --code CLONE/src {input} {output}"

Not run with its weights here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from request import multiple_of, parser, read, refine_each


def load(code: Path, model: str, device: str) -> Any:
    """Its DifixPipeline, from the clone's own file."""
    if not (code / "pipeline_difix.py").is_file():
        sys.exit(f"--code {code} has no pipeline_difix.py: name the folder src of a clone of Difix's repository")
    sys.path.insert(0, str(code))
    from pipeline_difix import DifixPipeline  # pyright: ignore[reportMissingImports]

    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    return DifixPipeline.from_pretrained(model, torch_dtype=dtype, use_safetensors=True).to(device)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--code", type=Path, default=Path("Difix3D/src"), help="where pipeline_difix.py is")
    options.add_argument("--model", default="nvidia/difix_ref", help="folder or hub id")
    options.add_argument("--size", type=int, default=1024, help="longer side that the network sees at most, pixels")
    chosen = options.parse_args()
    seed = int(read(chosen.input)["seed"])
    pipeline = None if chosen.dry_run else load(chosen.code, chosen.model, chosen.device)

    def refine(render: Image.Image, reference: Image.Image | None) -> Image.Image:
        size = multiple_of(render.size, 64, chosen.size)
        shown = render.resize(size, Image.Resampling.BICUBIC)
        if pipeline is None:
            return shown
        guide = shown if reference is None else reference.resize(size, Image.Resampling.BICUBIC)
        return pipeline(
            "remove degradation", image=shown, ref_image=guide, num_inference_steps=1, timesteps=[199],
            guidance_scale=0.0, generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip

    refine_each(chosen, refine)


if __name__ == "__main__":
    main()
