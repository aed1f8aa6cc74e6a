"""Any external program as refiner: renders, masks, references and cameras go out, refined pictures come back.

The program finds in its input folder ``request.json`` (what is there, cameras, seed), ``renders/NAME.png``,
``masks/NAME.png`` (white: known from photographs) and ``references/NAME.png``, and writes ``NAME.png`` for each render
into its output folder, at the render's size. Pictures are 8-bit PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from closeup_ns.refine.options import CommandRefinerConfig
from closeup_ns.refine.programs.external import Picture, Program, file_names
from closeup_ns.refine.protocol import GuideImage, RefinedView, RefineRequest
from closeup_ns.refine.results import failed, generated
from closeup_ns.views.view import View

FORMAT = 1
"""Version of request.json; programs may refuse another."""


class CommandRefiner:
    """Hands each pass to a program that the user named.

    Args:
        config: the command and how it is called.
        option: name of the option that holds the command, for messages.
    """

    name = "command"

    def __init__(self, config: CommandRefinerConfig, option: str) -> None:
        self.generates = config.generates
        self.frames = config.frames
        self._program = Program(config.run, config.timeout, option)

    def refine(self, request: RefineRequest) -> list[RefinedView]:
        """What the program made of each view. As deterministic as the program is; it is told the seed.

        Raises:
            RefinerError: the program cannot be run, takes too long, or ends with an error.
        """
        everything = range(len(request.views))
        if self.frames > 1:
            return self._pass(request, everything)
        return [view for index in everything for view in self._pass(request, [index])]

    def close(self) -> None:
        """Nothing is kept between two passes."""

    def _pass(self, request: RefineRequest, targets: Sequence[int]) -> list[RefinedView]:
        """One run of the program, for the views at the indices ``targets``."""
        stems = file_names([request.names[index] for index in targets])
        guides = [*request.anchors, *request.neighbours]
        guide_stems = file_names([guide.name for guide in guides])
        files: dict[str, Picture | dict[str, Any]] = {
            "request.json": {
                "format": FORMAT,
                "seed": request.seed,
                "views": [
                    _view_entry(request.names[index], stem, request.views[index])
                    for index, stem in zip(targets, stems, strict=True)
                ],
                "references": [_guide_entry(guide, stem) for guide, stem in zip(guides, guide_stems, strict=True)],
            }
        }
        for index, stem in zip(targets, stems, strict=True):
            files[f"renders/{stem}.png"] = request.renders[index].color
            files[f"masks/{stem}.png"] = request.masks[index].dense
        for guide, stem in zip(guides, guide_stems, strict=True):
            files[f"references/{stem}.png"] = guide.image
        expected = {
            f"{stem}.png": (request.views[index].height, request.views[index].width)
            for index, stem in zip(targets, stems, strict=True)
        }
        made = self._program.treat(files, expected)
        return [
            failed(request.renders[index], picture)
            if isinstance(picture, str)
            else generated(request.renders[index], request.masks[index].dense, picture)
            for index, picture in zip(targets, (made[name] for name in expected), strict=True)
        ]


def _camera(view: View) -> dict[str, Any]:
    """OpenCV axes, c2w, K in pixels: numbers that any program reads."""
    return {key: value for key, value in view.to_dict().items() if key != "dtype"}


def _view_entry(name: str, stem: str, view: View) -> dict[str, Any]:
    return {
        "name": name,
        "render": f"renders/{stem}.png",
        "mask": f"masks/{stem}.png",
        "output": f"{stem}.png",
        "camera": _camera(view),
    }


def _guide_entry(guide: GuideImage, stem: str) -> dict[str, Any]:
    # The camera's K must fit the picture that is written, whatever the view's own size is.
    view = guide.view.scaled_to(guide.image.shape[1], guide.image.shape[0])
    return {"name": guide.name, "file": f"references/{stem}.png", "photograph": guide.is_real, "camera": _camera(view)}
