"""The panel's elements; what a person does with them is handed to `Actions`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Protocol

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


class Actions(Protocol):
    """What a person can do. Each returns at once."""

    def pick(self) -> None:
        """The next click in the scene sets the target; while that is so, take it back."""
        ...

    def come_closer(self, stops: float, client: viser.ClientHandle | None) -> None:
        """Move a client's camera to 3^``stops`` times closer than the photographs."""
        ...

    def filter_cameras(self) -> None:
        """Show the cameras that are ticked."""
        ...

    def choose_model(self, shown: str) -> None:
        """Show ``REFINED``, ``BASE`` or ``BOTH``."""
        ...

    def toggle_overlay(self) -> None:
        """Overlays were ticked or unticked."""
        ...

    def run_round(self) -> None:
        """Ask for the next round."""
        ...

    def save_path(self, client: viser.ClientHandle | None) -> None:
        """Save a path about the target."""
        ...


class Panel:
    """The elements, in a folder above nerfstudio's tabs."""

    def __init__(self, server: viser.ViserServer, actions: Actions, order: float, no_rounds: str | None) -> None:
        """
        Args:
            order: viser's position of the folder.
            no_rounds: why the button for the next round cannot be pressed; None where it can.
        """
        gui = server.gui
        with gui.add_folder("Close-up", order=order):
            self._add_target(gui, actions)
            self._add_cameras(gui, actions)
            self._add_overlays(gui, actions)
            with gui.add_folder("Next round"):
                self.next_round = gui.add_button("Run the next round from here", disabled=no_rounds is not None)
                self.next_round.on_click(lambda _: actions.run_round())
                self.wished = self._text(gui, "")
                self.progress = self._text(gui, no_rounds or "")
            with gui.add_folder("Camera path"):
                self.kind = gui.add_dropdown("Kind", PATHS)
                self.start = gui.add_dropdown("Start from", (PHOTOGRAPH, VIEWPORT))
                self.path_name = gui.add_text("Name", "closeup")
                self.save = gui.add_button("Save camera path")
                self.save.on_click(lambda event: actions.save_path(event.client))
                self.saved = self._text(gui, "")

    def _add_target(self, gui: viser.GuiApi, actions: Actions) -> None:
        self.message = self._text(gui, "")
        self.target = self._text(gui, "No target yet.")
        self.pick = gui.add_button(CLICK, hint="then click on the object")
        self.cancel = gui.add_button(CANCEL, visible=False)
        for button in (self.pick, self.cancel):
            button.on_click(lambda _: actions.pick())
        marks = ((0.0, "1x"), (1.0, "3x"), (2.0, "9x"), (3.0, "27x"))
        self.closer = gui.add_slider("Closer", -1.0, 3.5, 0.05, 0.0, marks=marks, hint="times closer than training")
        self.closer.on_update(lambda event: actions.come_closer(float(event.target.value), event.client))
        self.zoom = self._text(gui, "")
        self.way = self._text(gui, "")

    def _add_cameras(self, gui: viser.GuiApi, actions: Actions) -> None:
        every_round: list[str] = [ALL_ROUNDS]
        with gui.add_folder("Cameras of the rounds"):
            self.rounds: viser.GuiDropdownHandle[str] = gui.add_dropdown("Round", every_round)
            self.rounds.on_update(lambda _: actions.filter_cameras())
            self.kinds: dict[CameraKind, viser.GuiInputHandle[bool]] = {}
            for kind in COLORS:
                hint = f"colour: rgb{COLORS[kind]}"
                self.kinds[kind] = gui.add_checkbox(LABELS[kind], True, hint=hint)
                self.kinds[kind].on_update(lambda _: actions.filter_cameras())
            self.camera = self._text(gui, "")

    def _add_overlays(self, gui: viser.GuiApi, actions: Actions) -> None:
        with gui.add_folder("What is shown"):
            self.model = gui.add_dropdown("Model", (REFINED, BASE, BOTH))
            self.model.on_update(lambda event: actions.choose_model(event.target.value))
            self.reliable = gui.add_checkbox("reliable pixels", False, hint="green: a photograph's geometry agrees")
            self.provenance = gui.add_checkbox("real or generated", False, hint="blue: real; orange: generated")
            for box in (self.reliable, self.provenance):
                box.on_update(lambda _: actions.toggle_overlay())
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
