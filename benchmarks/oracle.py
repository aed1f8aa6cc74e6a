r"""What rounds are worth with a generator that knows the truth: an upper bound, and a test of all but the generator.

    closeup-gs demo --output OUT                            # DEMO is then OUT/scenes/demo/table
    ns-train closeup-gs-quick --data DEMO/capture --pipeline.refiner.kind command \
        --pipeline.refiner.command.frames 40 --pipeline.refiner.command.timeout 3000 \
        --pipeline.refiner.command.run "python -m benchmarks.oracle DEMO {input} {output} --as truth" ...

It stands in for a diffusion model as an external program: it looks up where the request's cameras are and renders the
demo scene from there, either exactly (``truth``), or as a plausible generator would see it (``generator``: every view
bent in its own way, a little soft, with a colour cast), or with detail from elsewhere (``elsewhere``).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.demo.layout import still_life
from closeup_ns.data.demo.render import World
from closeup_ns.data.demo.scene import DemoNote, photographed
from closeup_ns.reading import read_json
from closeup_ns.views.view import View

Kind = Literal["truth", "generator", "elsewhere"]
Picture = NDArray[Any]
"""[H, W, 3] in 0..255."""
BEND_PIXELS, BEND_SCALE = 1.5, 24.0
CAST_LEVELS, CAST_SCALE = 5.0, 40.0
SOFT_SIGMA = 0.6
DETAIL_SIGMA = 3.0
LIGHT_SAMPLES = 64


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], scale: float, strength: float) -> Picture:
    """Noise [H, W] of standard deviation ``strength``, with features of ``scale`` pixels."""
    noise = gaussian_filter(rng.standard_normal(size), scale)
    return noise * (strength / noise.std())


def as_a_generator(truth: Picture, render: Picture, rng: np.random.Generator) -> Picture:
    """The truth, bent by 1.5 pixels, soft, and off in its colours: differently in each view."""
    del render
    size = (truth.shape[0], truth.shape[1])
    rows, columns = np.indices(size, dtype=np.float64)
    places = [axis + smooth_noise(rng, size, BEND_SCALE, BEND_PIXELS) for axis in (rows, columns)]
    bent = [map_coordinates(truth[..., channel], places, order=3, mode="nearest") for channel in range(3)]
    cast = [smooth_noise(rng, size, CAST_SCALE, CAST_LEVELS) for _ in range(3)]
    return gaussian_filter(np.stack(bent, -1), (SOFT_SIGMA, SOFT_SIGMA, 0)) + np.stack(cast, -1)


def from_elsewhere(truth: Picture, render: Picture, rng: np.random.Generator) -> Picture:
    """The render with the truth's fine detail in the wrong places: what no photograph can contradict."""
    detail = truth - gaussian_filter(truth, (DETAIL_SIGMA, DETAIL_SIGMA, 0))
    shift = (int(rng.integers(15, 40)), int(rng.integers(15, 40)))
    return gaussian_filter(render, (1, 1, 0)) + np.roll(detail, shift, (0, 1))


KINDS: dict[Kind, Callable[[Picture, Picture, np.random.Generator], Picture]] = {
    "truth": lambda truth, render, rng: truth,
    "generator": as_a_generator,
    "elsewhere": from_elsewhere,
}


class Oracle:
    """The demo scene, at cameras in the world frame of a nerfstudio run on its capture."""

    def __init__(self, demo: Path) -> None:
        about: DemoNote = read_json(demo / "demo.json", DemoNote, "Name a folder that closeup-gs demo made")
        self.target, self.d0 = np.array(about.target), about.d0
        self.world = World(still_life(about.seed), LIGHT_SAMPLES)
        parsed = CloseupDataParserConfig(data=demo / "capture").setup().get_dataparser_outputs("train")
        self.scale = parsed.dataparser_scale
        self.to_capture = torch.eye(4, dtype=torch.float64)
        self.to_capture[:3] = parsed.dataparser_transform.double()
        self.to_capture = self.to_capture.inverse()

    def picture(self, camera: dict[str, Any]) -> Picture:
        """What a photograph from there would show."""
        c2w = torch.eye(4, dtype=torch.float64)
        pose = torch.tensor(camera["c2w"], dtype=torch.float64)
        c2w[: len(pose)] = pose
        c2w[:3, 3] /= self.scale
        K = torch.tensor(camera["K"], dtype=torch.float64)
        view = View(K, self.to_capture @ c2w, camera["width"], camera["height"])
        times = self.d0 / float(np.linalg.norm(view.position.numpy() - self.target))
        nominal = self.d0 / 3 ** max(round(math.log(times, 3)), 0)
        return photographed(self.world, view, nominal).astype(np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer one request of the refiner ``command``."""
    parser = argparse.ArgumentParser(description="A refiner that knows the truth.")
    parser.add_argument("demo", type=Path, help="folder with demo.json and capture/")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--as", dest="kind", choices=list(KINDS), default="truth")
    options = parser.parse_args(arguments)
    request = json.loads((options.input / "request.json").read_text(encoding="utf8"))
    oracle = Oracle(options.demo)
    for number, view in enumerate(request["views"]):
        with Image.open(options.input / view["render"]) as image:
            render = np.asarray(image.convert("RGB"), dtype=np.float64)
        rng = np.random.default_rng([request["seed"], number])
        made = KINDS[options.kind](oracle.picture(view["camera"]), render, rng)
        Image.fromarray(made.clip(0, 255).round().astype(np.uint8)).save(options.output / view["output"])


if __name__ == "__main__":
    main()
