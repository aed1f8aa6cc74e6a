"""Draws over the viewer's frames: the base model, reliable pixels, provenance.

nerfstudio renders a frame and hands it here, in the client's own render thread, before it is sent. What takes longer
than a frame (loading a checkpoint, measuring against the photographs) is a job for the worker; until it is done, frames
go out as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from nerfstudio.viewer.utils import CameraState, get_camera
from torch import Tensor

from closeup_ns.model.cameras import view_of
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.panel import BASE, REFINED
from closeup_ns.viewer.picture.base_model import BaseModel, base_checkpoint
from closeup_ns.viewer.picture.evidence import gather_evidence
from closeup_ns.viewer.picture.overlays import Backing, GeneratedView, backing, draw, draw_target, side_by_side
from closeup_ns.viewer.worker import Worker
from closeup_ns.views.reliability import Observation
from closeup_ns.views.rendered import Renderer
from closeup_ns.views.view import View

MASK_SIZE = 160
"""Long side, in pixels, at which reliable pixels and provenance are measured. Larger is finer and slower."""
PHOTOGRAPHS = 64
"""Most photographs that those overlays look at; of larger captures, this many evenly spaced ones."""
_KEPT = 16
_STALE_STEPS = 500
"""While a run trains, depths of the photographs are rendered anew after this many steps."""


class Frames:
    """What the frames show beside the model."""

    def __init__(
        self,
        run: Run,
        store: RoundStore,
        worker: Worker,
        render: Renderer,
        lock: Callable[[], AbstractContextManager[Any]],
        changed: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            render: takes the lock by itself, for one image at a time.
            lock: keeps training and other renders away.
            changed: called from the worker when the next frame would look different.
            say: tells the person who looks.
        """
        self.run, self.store, self.worker = run, store, worker
        self.render, self.lock, self.changed, self.say = render, lock, changed, say
        self.model, self.reliable, self.provenance = REFINED, False, False
        self.target: Tensor | None = None
        """World point about which a ring is drawn."""
        self.base: BaseModel | None = None
        self.evidence: tuple[list[Observation], list[GeneratedView]] | None = None
        self._evidence_step = 0
        self._found: OrderedDict[tuple[float, ...], Backing] = OrderedDict()

    def load_base(self) -> None:
        """Load the base model, once. A job for the worker. CheckpointError where it is not there, or cannot be read."""
        if self.base is None:
            schedule = self.store.load_schedule() or self.run.settings.schedule
            path = base_checkpoint(self.store.root.parent / "nerfstudio_models", schedule.base_steps)
            self.say("loading the base model")
            self.base = BaseModel.load(path, self.run.device)
        self.say("")
        self.changed()

    def decorate(self, outputs: dict[str, Any], state: CameraState, moving: bool, crop: Any = None) -> dict[str, Any]:
        """The frame as the panel wants it. ``moving``: the camera has not come to rest, so nothing new is measured."""
        base = self.base if self.model != REFINED else None
        if base is None and self.target is None and not (self.reliable or self.provenance):
            return outputs
        rgb = outputs["rgb"]
        if base is not None:
            other = self._render_base(base, state, rgb, crop)
            rgb = other if self.model == BASE else side_by_side(other, rgb)
        if self.reliable or self.provenance:
            found = self._look_up(state, moving)
            if found is not None:
                rgb = draw(rgb, found, self.reliable, self.provenance)
        if self.target is not None:
            rgb = draw_target(rgb, _small_view(state).to(self.run.device), self.target)
        return {**outputs, "rgb": rgb}

    @torch.no_grad()
    def _render_base(self, base: BaseModel, state: CameraState, like: Tensor, crop: Any) -> Tensor:
        model = self.run.model
        camera = get_camera(state, like.shape[0], like.shape[1]).to(model.device)
        with self.lock():
            was_training = model.training
            model.eval()
            try:
                with base.shown_by(model):
                    return model.get_outputs_for_camera(camera, obb_box=crop)["rgb"]
            finally:
                model.train(was_training)

    def _look_up(self, state: CameraState, moving: bool) -> Backing | None:
        """What backs the pixels seen from here; None until the worker has found out."""
        key = (*(round(float(value), 5) for value in state.c2w.flatten()), round(state.fov, 4), round(state.aspect, 3))
        found = self._found.get(key)
        if found is None and not moving:
            self.worker.submit("overlay", lambda: self._measure(key, state))
        return found

    def _measure(self, key: tuple[float, ...], state: CameraState) -> None:
        run = self.run
        if self.evidence is None or abs(run.model.step - self._evidence_step) > _STALE_STEPS:
            self._evidence_step = run.model.step
            self.evidence = gather_evidence(run, self.store, self.render, MASK_SIZE, PHOTOGRAPHS, self.say)
            self._found.clear()
        view = _small_view(state).to(run.device)
        photographs, generated = self.evidence
        self._found[key] = backing(view, self.render(view), photographs, generated)
        while len(self._found) > _KEPT:
            self._found.popitem(last=False)
        self.say(f"measured at {view.width} x {view.height} pixels from {len(photographs)} photographs "
                 f"and {len(generated)} generated views")  # fmt: skip
        self.changed()

    def forget(self) -> None:
        """Measure again what backs the pixels: a round has added views or changed the model."""
        self.evidence = None
        self._found.clear()


def _small_view(state: CameraState) -> View:
    """The view of a frame, with `MASK_SIZE` pixels on its long side."""
    width = max(2, round(MASK_SIZE * min(1.0, state.aspect)))
    height = max(2, round(MASK_SIZE / max(1.0, state.aspect)))
    return view_of(get_camera(state, height, width).reshape((1,)), 0)
