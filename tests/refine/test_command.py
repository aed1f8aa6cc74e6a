"""The command refiner: what a program finds in its folder, and what becomes of what it writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from closeup_ns.refine.options import CommandRefinerConfig, EnhanceConfig, RefinerConfig
from closeup_ns.refine.programs.command import CommandRefiner
from closeup_ns.refine.protocol import GuideImage, Refiner, RefineRequest
from closeup_ns.refine.refiner import COMMAND_OPTION, build_refiner
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View
from tests.refine.scene import backed, camera, request_of, solid

NAMES = ["t0_update_00", "t0_update_01", "t0/update_01"]
FIX = """
import json, pathlib, shutil, sys
from PIL import Image, ImageChops
source, sink, log = map(pathlib.Path, sys.argv[1:4])
request = json.loads((source / "request.json").read_text())
with log.open("a") as lines:
    lines.write(json.dumps(request) + "\\n")
for number, view in enumerate(request["views"]):
    render, mask = Image.open(source / view["render"]), Image.open(source / view["mask"])
    assert render.size == mask.size == (view["camera"]["width"], view["camera"]["height"])
    for reference in request["references"]:
        picture = Image.open(source / reference["file"])
        assert picture.size == (reference["camera"]["width"], reference["camera"]["height"])
    ImageChops.invert(render).save(sink / view["output"])
"""


def make_request() -> RefineRequest:
    """Three views of different widths, a photograph and a finished view."""
    generator = torch.Generator().manual_seed(5)
    renders = [solid(torch.randint(0, 256, (8, 12 + index, 3), generator=generator) / 255.0) for index in range(3)]
    masks = [backed(torch.rand(render.alpha.shape, generator=generator) > 0.5) for render in renders]
    anchors = [GuideImage("train/frame_1", camera(0, 0, 0, 30, 20), torch.rand(20, 30, 3, generator=generator), True)]
    neighbours = [GuideImage("t0_update_09", camera(1, 0, 0, 24, 16), torch.rand(8, 12, 3, generator=generator), False)]
    return request_of(renders, masks=masks, names=NAMES, anchors=anchors, neighbours=neighbours)


def refiner(tmp_path: Path, body: str = FIX, **options: object) -> tuple[CommandRefiner, Path]:
    program, log = tmp_path / "fix.py", tmp_path / "log"
    program.write_text(body)
    run = f"{sys.executable} {program} {{input}} {{output}} {log}"
    config = CommandRefinerConfig(run=run, **options)  # type: ignore[arg-type]
    made = CommandRefiner(config, COMMAND_OPTION)
    assert isinstance(made, Refiner)
    return made, log


def test_a_program_sees_everything_and_its_pictures_come_back_in_order(tmp_path: Path) -> None:
    made, log = refiner(tmp_path)
    request = make_request()
    refined = made.refine(request)
    for result, render in zip(refined, request.renders, strict=True):
        assert result.failure is None
        assert torch.allclose(result.image, 1 - render.color, atol=1e-6)
        assert not result.real.any()
        assert (result.weight == 1).all()
    (line,) = log.read_text().splitlines()
    told = json.loads(line)
    assert (told["seed"], told["format"]) == (7, 1)
    assert [view["name"] for view in told["views"]] == NAMES
    assert len({view["output"] for view in told["views"]}) == 3
    for view, entry in zip(request.views, told["views"], strict=True):
        back = View.from_dict(entry["camera"])
        assert torch.equal(back.K, view.K) and torch.equal(back.c2w, view.c2w)
    assert [(entry["name"], entry["photograph"]) for entry in told["references"]] == [
        ("train/frame_1", True), ("t0_update_09", False)
    ]  # fmt: skip
    half = told["references"][1]["camera"]  # the picture is half as large as its view says
    assert torch.allclose(torch.tensor(half["K"])[:2], camera(1, 0, 0, 24, 16).K[:2] / 2)


def test_the_mask_is_white_where_photographs_know(tmp_path: Path) -> None:
    body = FIX.replace("ImageChops.invert(render)", 'mask.convert("RGB")')
    request = make_request()
    for result, mask in zip(refiner(tmp_path, body)[0].refine(request), request.masks, strict=True):
        assert torch.equal(result.image, mask.dense[..., None].float().expand(-1, -1, 3))


def test_each_view_alone_where_the_user_says_so(tmp_path: Path) -> None:
    made, log = refiner(tmp_path, frames=1, generates=False)
    assert (made.frames, made.generates) == (1, False)
    together, _ = refiner(tmp_path)
    assert (together.frames, together.generates) == (18, True)
    request = make_request()
    alone = made.refine(request)
    assert len(log.read_text().splitlines()) == 3
    for one, other in zip(alone, together.refine(request), strict=True):
        assert torch.equal(one.image, other.image)


def test_a_view_that_fails_keeps_its_render_and_the_others_are_kept(tmp_path: Path) -> None:
    body = FIX.replace("    ImageChops", "    if number != 1: ImageChops")
    request = make_request()
    request.renders[1].color[0, 0, 0] = float("nan")
    first, second, third = refiner(tmp_path, body)[0].refine(request)
    assert first.failure is None and third.failure is None
    assert second.failure is not None and "wrote no" in second.failure
    assert second.image.isfinite().all() and not second.weight.any() and not second.real.any()
    assert torch.equal(second.image, torch.nan_to_num(request.renders[1].color))


def test_no_references_another_type(tmp_path: Path) -> None:
    render = make_request().renders[0]
    double = Rendered(render.color.double(), render.depth.double(), render.alpha.double())
    (result,) = refiner(tmp_path)[0].refine(request_of([double]))
    assert result.image.dtype == result.weight.dtype == torch.float64
    assert torch.allclose(result.image, 1 - render.color.double(), atol=1e-6)


def test_a_program_sharpens_by_the_same_protocol_as_it_refines(tmp_path: Path) -> None:
    refiner(tmp_path)
    run = f"{sys.executable} {tmp_path / 'fix.py'} {{input}} {{output}} {tmp_path / 'log'}"
    made, line = build_refiner(RefinerConfig("none", enhance=EnhanceConfig("command", run)), "cpu")
    for view in made.refine(make_request()):
        assert view.notes["enhance"] == "command" and float(view.notes["enhance_change"]) > 0.01
    assert line.endswith("enhanced by command")
