"""The command enhancer: an analytic sharpening program as example, upscalers, and what fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from closeup_ns.errors import RefinerError
from closeup_ns.refine.enhance.enhancer import Enhancer
from closeup_ns.refine.enhance.options import CommandEnhancerConfig
from closeup_ns.refine.filters import gaussian_blur
from tests.refine import stand_ins

CPU = torch.device("cpu")
UNSHARP = """
import pathlib, sys
from PIL import Image, ImageFilter
source, sink = map(pathlib.Path, sys.argv[1:3])
for path in sorted(source.iterdir()):
    picture = Image.open(path)
    if len(sys.argv) > 3:
        picture = picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.LANCZOS)
    else:
        picture = picture.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=0))
    picture.save(sink / path.name)
"""


def enhancer(tmp_path: Path, body: str = UNSHARP, more: str = "", **options: Any) -> Enhancer:
    program = tmp_path / "enhance.py"
    program.write_text(body)
    config = CommandEnhancerConfig(run=f"{sys.executable} {program} {{input}} {{output}} {more}", **options)
    assert config.why_not(CPU) is None
    made = config.setup(CPU)
    assert isinstance(made, Enhancer) and not made.guided and made.name == "command"
    return made


def blurred(size: tuple[int, int]) -> torch.Tensor:
    bars = (torch.arange(size[1]) // 8 % 2).float() * 0.4 + 0.3
    return gaussian_blur(bars.expand(3, *size).contiguous(), 1.5).permute(1, 2, 0)


def test_an_unsharp_mask_sharpens(tmp_path: Path) -> None:
    images = [blurred((40, 64)), blurred((24, 32)).double()]
    made = enhancer(tmp_path).enhance(images, [], 0)
    for result, image in zip(made, images, strict=True):
        assert isinstance(result, torch.Tensor)
        assert result.shape == image.shape and result.dtype == image.dtype
        # Far enough from the border: the edges are steeper.
        assert float(result.diff(dim=1).abs().max()) > 1.2 * float(image.diff(dim=1).abs().max())


def test_an_upscaler_is_brought_back(tmp_path: Path) -> None:
    image = stand_ins.smooth(torch.Generator().manual_seed(1), 40, 64)
    (made,) = enhancer(tmp_path, more="x4").enhance([image], [], 0)
    assert isinstance(made, torch.Tensor)
    assert float((made - image).abs().max()) < 0.03


def test_a_picture_that_is_missing_is_said_and_a_program_that_fails_is_an_error(tmp_path: Path) -> None:
    body = UNSHARP.replace("for path in sorted(source.iterdir()):", "for path in sorted(source.iterdir())[1:]:")
    first, second = enhancer(tmp_path, body).enhance([blurred((24, 32))] * 2, [], 0)
    assert isinstance(first, str) and "wrote no output/view_000.png" in first
    assert isinstance(second, torch.Tensor)
    broken = enhancer(tmp_path, "raise SystemExit('no licence')")
    with pytest.raises(RefinerError, match="--pipeline.refiner.enhance.command.run.*exit code 1.*\nno licence"):
        broken.enhance([blurred((24, 32))], [], 0)
    broken.close()
    assert "is empty" in (CommandEnhancerConfig().why_not(CPU) or "")
    assert CommandEnhancerConfig(run="x", frames=3).setup(CPU).frames == 3
