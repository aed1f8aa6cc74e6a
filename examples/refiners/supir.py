# Weights: SUPIR Software License, non-commercial; making pictures for training counts as a use of its own: read it.
"""SUPIR, which the paper used after See3D, through the `test.py` of a clone of its repository.

    --pipeline.refiner.kind see3d --pipeline.refiner.enhance.kind command
    --pipeline.refiner.enhance.run "python examples/refiners/supir.py --supir CLONE {input} {output}"

Not run with its weights here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from request import parser, picture, read


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--supir", type=Path, default=Path("SUPIR"), help="the clone")
    options.add_argument("--python", default=sys.executable, help="the interpreter of its environment")
    options.add_argument("--sign", choices=("Q", "F"), default="Q", help="which of its two networks")
    chosen = options.parse_args()
    request = read(chosen.input)
    with tempfile.TemporaryDirectory() as name:
        source, sink = Path(name) / "in", Path(name) / "out"
        source.mkdir()
        sink.mkdir()
        for number, view in enumerate(request["views"]):
            picture(chosen.input, view["render"]).save(source / f"{number:03d}.png")
        if chosen.dry_run:
            for path in source.iterdir():
                path.rename(sink / f"{path.stem}_0.png")
        else:
            if not (chosen.supir / "test.py").is_file():
                sys.exit(f"--supir {chosen.supir} is no clone of SUPIR: it has no test.py")
            options = ["--img_dir", source, "--save_dir", sink, "--upscale", "1", "--SUPIR_sign", chosen.sign]
            command = [chosen.python, "test.py", *map(str, options), "--seed", str(request["seed"] % 2**31)]
            subprocess.run(command, cwd=chosen.supir, check=True)
        for number, view in enumerate(request["views"]):
            made = sink / f"{number:03d}_0.png"
            if not made.is_file():
                print(f"{view['name']}: SUPIR wrote no {made.name}", file=sys.stderr)
                continue
            size = (view["camera"]["width"], view["camera"]["height"])
            picture(sink, made.name).resize(size, Image.Resampling.BICUBIC).save(chosen.output / view["output"])


if __name__ == "__main__":
    main()
