"""The panel's elements; the controller connects them with what they do."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import viser
from PIL import Image

from closeup_ns.paths.options import Kind
from closeup_ns.viewer.frustums import COLORS, LABELS, CameraKind

REFINED, BASE, BOTH = "refined", "base", "base | refined"
PHOTOGRAPH, VIEWPORT = "the best photograph", "this viewport"
ALL_ROUNDS = "all rounds"
PATHS: tuple[Kind, ...] = ("dive", "orbit", "pull-back")
CLICK, CANCEL = "Set target by a click", "Cancel: no new target"


class Panel:
    """The elements, in a folder above nerfstudio's tabs."""

    def __init__(self, server: viser.ViserServer, order: float, no_rounds: str | None) -> None:
        """
        Args:
            order: viser's position of the folder.
            no_rounds: why the button for the next round cannot be pressed; None where it can.
        """
        gui = server.gui
        with gui.add_folder("Close-up", order=order):
            self._add_target(gui)
            self._add_cameras(gui)
            self._add_overlays(gui)
            with gui.add_folder("Next round"):
                self.next_round = gui.add_button("Run the next round from here", disabled=no_rounds is not None)
                self.request_status = self._text(gui, "")
                self.progress = self._text(gui, no_rounds or "")
            with gui.add_folder("Camera path"):
                self.kind = gui.add_dropdown("Kind", PATHS)
                self.start = gui.add_dropdown("Start from", (PHOTOGRAPH, VIEWPORT))
                self.path_name = gui.add_text("Name", "closeup")
                self.save = gui.add_button("Save camera path")
                self.saved = self._text(gui, "")

    def _add_target(self, gui: viser.GuiApi) -> None:
        self.message = self._text(gui, "")
        self.target = self._text(gui, "No target yet.")
        self.pick = gui.add_button(CLICK, hint="then click on the object")
        self.cancel = gui.add_button(CANCEL, visible=False)
        marks = ((0.0, "1x"), (1.0, "3x"), (2.0, "9x"), (3.0, "27x"))
        self.closer = gui.add_slider("Closer", -1.0, 3.5, 0.05, 0.0, marks=marks, hint="times closer than training")
        self.zoom = self._text(gui, "")

    def _add_cameras(self, gui: viser.GuiApi) -> None:
        every_round: list[str] = [ALL_ROUNDS]
        with gui.add_folder("Cameras of the rounds"):
            self.rounds: viser.GuiDropdownHandle[str] = gui.add_dropdown("Round", every_round)
            self.kinds: dict[CameraKind, viser.GuiInputHandle[bool]] = {}
            for kind in COLORS:
                hint = f"colour: rgb{COLORS[kind]}"
                self.kinds[kind] = gui.add_checkbox(LABELS[kind], True, hint=hint)
            self.camera = self._text(gui, "")

    def _add_overlays(self, gui: viser.GuiApi) -> None:
        with gui.add_folder("What is shown"):
            self.model = gui.add_dropdown("Model", (REFINED, BASE, BOTH))
            self.reliable = gui.add_checkbox("reliable pixels", False, hint="green: a photograph's geometry agrees")
            self.provenance = gui.add_checkbox("real or generated", False, hint="blue: real; orange: generated")
            self.overlay = self._text(gui, "")

    def show_picking(self, picking: bool) -> None:
        """Whether the next click in the scene sets the target. viser's buttons cannot change their label."""
        self.pick.visible, self.cancel.visible = not picking, picking

    @staticmethod
    def _text(gui: viser.GuiApi, content: str) -> viser.GuiMarkdownHandle:
        # viser warns where Markdown has no folder for its images; ours bring their bytes with them.
        return gui.add_markdown(content, image_root=Path())


def say(text: viser.GuiMarkdownHandle, content: str) -> None:
    """Change a text where it changes: each change is a message to every browser."""
    if text.content != content:
        text.content = content


def markdown_image(picture: np.ndarray, alt: str) -> str:
    """A picture [H, W, 3] uint8 as Markdown that brings its own bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=85)
    return f"![{alt}](data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()})"
