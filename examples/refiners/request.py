# No weights: what the scripts in this folder share.
"""The folder that closeup-gs hands to a program: views in, pictures of the same size out (docs/refiners.md)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

FORMAT = 1
"""Of request.json."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """What every script takes: the two folders, the device, and a dry run."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("input", type=Path, help="the folder that closeup-gs writes, {input} in the command")
    made.add_argument("output", type=Path, help="the folder that it reads, {output} in the command")
    made.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where the network works"
    )
    made.add_argument("--dry-run", action="store_true", help="without the network: the render, through the same sizes")
    return made


def read(folder: Path) -> dict[str, Any]:
    """request.json. Ends the program where this is another format than it was written for."""
    request = json.loads((folder / "request.json").read_text(encoding="utf8"))
    if request.get("format") != FORMAT:
        sys.exit(f"{folder / 'request.json'} has format {request.get('format')!r}; this script reads {FORMAT}")
    return request


def picture(folder: Path, name: str) -> Image.Image:
    """A picture of the folder, RGB."""
    with Image.open(folder / name) as image:
        return image.convert("RGB")


def refine_each(chosen: argparse.Namespace, refine: Callable[[Image.Image, Image.Image | None], Image.Image]) -> None:
    """Writes what ``refine`` makes of each render and of its nearest reference, at the render's size.

    A view for which ``refine`` raises ValueError is left out, and only it fails.
    """
    request = read(chosen.input)
    for view in request["views"]:
        render = picture(chosen.input, view["render"])
        reference = nearest(view, request["references"])
        try:
            made = refine(render, None if reference is None else picture(chosen.input, reference["file"]))
        except ValueError as error:
            print(f"{view['name']}: {error}", file=sys.stderr)
            continue
        resized = made if made.size == render.size else made.resize(render.size, Image.Resampling.BICUBIC)
        resized.save(chosen.output / view["output"])


def nearest(view: dict[str, Any], references: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The reference that looks most nearly the same way from most nearly the same place; None where there is none."""

    def apart(reference: dict[str, Any]) -> float:
        here, there = (np.array(entry["camera"]["c2w"]) for entry in (view, reference))
        return float(np.linalg.norm(here[:3, 3] - there[:3, 3]) * (2 - here[:3, 2] @ there[:3, 2]))

    return min(references, key=apart, default=None)


def multiple_of(size: tuple[int, int], multiple: int, longest: int) -> tuple[int, int]:
    """A picture's size (width, height) with both sides multiples, and the longer one at most ``longest``."""
    scale = min(1.0, longest / max(size))
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
    return width, height
