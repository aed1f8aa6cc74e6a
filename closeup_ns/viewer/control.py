"""The controller: what happens when a person clicks. Found by nerfstudio's viewer as an attribute of the pipeline.

Three kinds of threads meet here. Callbacks come from viser's pool and only note requests, move cameras, or hand a job
to the worker. Jobs run in the worker, one after another, and take the viewer's lock for one small render at a time.
Frames are decorated in each client's render thread. Nothing here trains, plans a round or loads a refiner: the next
round is a request that the training loop picks up between two steps.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import viser
from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.render_state_machine import RenderAction
from nerfstudio.viewer.utils import CameraState
from nerfstudio.viewer.viewer_elements import ViewerControl

from closeup_ns.errors import CloseupError
from closeup_ns.paths.options import Kind
from closeup_ns.planning.target import Target
from closeup_ns.rounds.loop import Rounds
from closeup_ns.rounds.run import Run
from closeup_ns.rounds.store.rounds import RoundStore
from closeup_ns.viewer.frustums import CameraMark, known_marks, round_marks, state_of, thumbnail
from closeup_ns.viewer.markdown import escape
from closeup_ns.viewer.next_round import progress, request_round, why_no_rounds, why_waiting
from closeup_ns.viewer.panel import ALL_ROUNDS, REFINED, VIEWPORT, Panel, markdown_image, say
from closeup_ns.viewer.paths import path_from, write_path
from closeup_ns.viewer.picture.frames import Frames
from closeup_ns.viewer.scene import Scene, jump, show_unless_inside
from closeup_ns.viewer.targets import describe, target_from_click
from closeup_ns.viewer.viewport import ZOOM_BASE, come_closer, first_view, is_behind, to_viser, viewport_view, zoom_of
from closeup_ns.viewer.worker import Worker
from closeup_ns.views.rendered import Rendered
from closeup_ns.views.view import View

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

_PICK_SIZE, _VIDEO_SIZE, _SHOWN_SIZE = 512, 960, 220
_SIZE_STEP = 1.3
"""Cameras are drawn anew when the distance that sets their size is this many times larger or smaller."""


class CloseupViewerControl(ViewerControl):
    """The close-up panel of one viewer. Does nothing until a viewer attaches itself."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.rounds: Rounds | None = None
        """Set where the run trains, before its first step."""
        self.target: Target | None = None
        self._chosen = False
        self._names: list[str] = []
        self._views: list[View] = []
        self._picking = False
        self._drawn: dict[int, tuple[int, bool]] = {}
        """Refined views of each round that is drawn, and whether it is over."""
        self._marks_scale = 1.0
        """Distance of the target, world units, that the cameras are drawn for."""
        self._eye: torch.Tensor | None = None
        self._unmoved: dict[int, np.ndarray] = {}

    def _setup(self, viewer: Viewer) -> None:
        """Called by nerfstudio's viewer when its own panels are there."""
        super()._setup(viewer)
        self.store = RoundStore(viewer.log_filename.parent / "rounds")
        self.worker = Worker(self._failed, self._refresh)
        self.scene = Scene(self.viser_server, self._show_camera)
        no_rounds = why_no_rounds(self._run.settings.schedule, viewer.trainer)
        self.panel = Panel(self.viser_server, viewer.stats_markdown.order + 1e-3, no_rounds)
        self._connect(self.panel)
        self.frames = Frames(
            self._run, self.store, self.worker, self.render, self._lock,
            self._rerender, lambda text: say(self.panel.overlay, escape(text)),
        )  # fmt: skip
        self.viser_server.on_client_connect(self._attach)
        self.worker.start()

    def _connect(self, panel: Panel) -> None:
        """What each element does. Each action returns at once."""
        for button in (panel.pick, panel.cancel):
            button.on_click(lambda _: self.pick())
        panel.closer.on_update(lambda event: self.come_closer(float(event.target.value), event.client))
        for element in (panel.rounds, *panel.kinds.values()):
            element.on_update(lambda _: self.filter_cameras())
        panel.model.on_update(lambda event: self.choose_model(event.target.value))
        for box in (panel.reliable, panel.provenance):
            box.on_update(lambda _: self.toggle_overlay())
        panel.next_round.on_click(lambda _: self.run_round())
        panel.save.on_click(lambda event: self.save_path(event.client))

    # ---- rendering and threads

    def _lock(self) -> AbstractContextManager[Any]:
        return self.viewer.train_lock if self.viewer.train_lock is not None else nullcontext()

    def render(self, view: View) -> Rendered:
        """Render the current model with training and other renders kept away meanwhile."""
        with self._lock():
            return self._run.model.render_view(view.to(self._run.device))

    def _rerender(self) -> None:
        """Have every client's frame rendered anew. nerfstudio's own way fails where a client leaves meanwhile."""
        for number, client in self.viser_server.get_clients().items():
            machine = self.viewer.render_statemachines.get(number)
            if machine is not None and self.viewer.ready:
                machine.action(RenderAction("move", self.viewer.get_camera_state(client)))

    def _attach(self, client: viser.ClientHandle) -> None:
        """Have a client's frames decorated before they are sent. Runs after nerfstudio's own callback."""
        self._unmoved[client.client_id] = client.camera.position
        machine = self.viewer.render_statemachines[client.client_id]
        render = machine._render_img

        def rendered(camera_state: CameraState) -> dict[str, Any]:
            outputs = render(camera_state)
            try:
                self._note_zoom(camera_state.c2w[:, 3])
                self.worker.submit("cameras", self.filter_cameras)
                panel = self.viewer.control_panel
                crop = panel.crop_obb if panel.crop_viewport else None
                return self.frames.decorate(outputs, camera_state, machine.state == "low_move", crop)
            except Exception as error:  # the render thread must live on: it would not come back
                self.frames.model, self.frames.reliable, self.frames.provenance = REFINED, False, False
                self._failed("overlay", error)
                return outputs

        machine._render_img = rendered

    def _failed(self, job: str, error: Exception) -> None:
        """An error belongs where the person looks; one that is not ours goes to the console too."""
        text = str(error) if isinstance(error, CloseupError) else f"{job}: {type(error).__name__}: {error}"
        new = self.panel.message.content != f"⚠ {escape(text)}"
        self._say(f"⚠ {escape(text)}")
        if new and not isinstance(error, CloseupError):
            CONSOLE.log(f"viewer, {text}", markup=False)

    def _say(self, text: str) -> None:
        say(self.panel.message, text)

    def _viewport(self, client: viser.ClientHandle, long_side: int) -> View:
        camera = client.camera
        view = viewport_view(camera.wxyz, camera.position, camera.fov, camera.aspect, long_side)
        return view.to(self._run.device)

    # ---- the scene and the texts

    def _refresh(self) -> None:
        """Between jobs: draw new cameras and update the texts."""
        if not self.viewer.ready or (self.viewer.trainer is not None and self.rounds is None):
            return
        if not self._views:
            data = self._run.photographs
            self._names, self._views = data.photograph_names(), data.train_views()
            self.scene.draw(known_marks(self._names, self._views, self._marks_scale))
        if self.target is None:
            self._take_saved_target()
        if self.target is not None and abs(math.log(self.target.distance / self._marks_scale)) > math.log(_SIZE_STEP):
            self._marks_scale = self.target.distance
            self.scene.draw(known_marks(self._names, self._views, self._marks_scale))
        self._show_first_view()
        self._draw_rounds()
        self.filter_cameras()
        self._say_progress()

    def _say_progress(self) -> None:
        rounds, trainer = self.rounds, self.viewer.trainer
        if rounds is None:
            return
        lines = (progress(rounds), why_waiting(rounds, trainer), why_no_rounds(self._run.settings.schedule, trainer))
        say(self.panel.progress, "  \n".join(filter(None, lines)))

    def _show_first_view(self) -> None:
        """Move a client that has just connected to `first_view`: viser's own first view lies somewhere in the scene."""
        for number, client in self.viser_server.get_clients().items():
            first = self._unmoved.pop(number, None)
            if first is not None and np.array_equal(client.camera.position, first):
                jump(client, *first_view(self._names, self._views, self.target, self.render))

    def _take_saved_target(self) -> None:
        if self._chosen:
            return
        try:
            saved = self.store.load_targets()
        except CloseupError as error:
            self._chosen = True  # by nobody yet; but this one is not asked for again
            say(self.panel.target, f"⚠ The run's target cannot be read: set one by a click. {escape(str(error))}")
            return
        if saved:
            self._set_target(saved[0])

    def _draw_rounds(self) -> None:
        for number, views, over in state_of(self.store):
            if self._drawn.get(number) == (views, over):
                continue
            self._drawn[number] = views, over
            self.scene.draw(round_marks(self.store, number))
            self.frames.forget()
        if not self._drawn:
            say(self.panel.camera, "This run has no rounds yet.")
        options = (ALL_ROUNDS, *(f"round {number}" for number in self._drawn))
        if self.panel.rounds.options != options:
            self.panel.rounds.options = options
            say(self.panel.camera, "Click on a frustum to go there and see its refined image.")

    def _visible(self, mark: CameraMark) -> bool:
        chosen = self.panel.rounds.value
        in_round = mark.round_index == 0 or chosen in (ALL_ROUNDS, f"round {mark.round_index}")
        return self.panel.kinds[mark.kind].value and in_round

    def filter_cameras(self) -> None:
        """No camera is in the way while a target is chosen: a click on one would jump there."""
        eyes = [client.camera.position for client in self.viser_server.get_clients().values()]
        self.scene.show(lambda mark: not self._picking and self._visible(mark), eyes)
        others = list(getattr(self.viewer, "camera_handles", {}).values())
        shown = self.viewer.hide_images.visible and not self._picking
        for handle in others:
            show_unless_inside(handle, self._marks_scale, shown, eyes)

    def _show_camera(self, mark: CameraMark, client: viser.ClientHandle) -> None:
        jump(client, mark.view, mark.distance)
        note = f"**{escape(mark.title)}**  \n{escape(mark.note)}"
        say(self.panel.camera, note)
        picture = mark.picture
        if picture is not None:
            self.worker.submit(
                "picture",
                lambda: say(
                    self.panel.camera, f"{note}\n\n{markdown_image(thumbnail(picture, _SHOWN_SIZE), 'refined image')}"
                ),
            )

    # ---- the target

    def pick(self) -> None:
        """The next click in the scene sets the target; while that is so, take it back."""
        if self._picking:
            self._end_picking()
            return
        self._picking = True
        self.viser_server.scene.on_pointer_event("click")(self._clicked)
        self.panel.show_picking(True)
        self.filter_cameras()
        self._say("Click on the object.")

    def _end_picking(self) -> None:
        self._picking = False
        self.viser_server.scene.remove_pointer_callback()
        self.panel.show_picking(False)
        self.filter_cameras()
        self._say("")

    def _clicked(self, event: viser.ScenePointerEvent) -> None:
        screen = event.screen_pos[0]
        self._end_picking()
        self._say("Measuring the target ...")
        view = self._viewport(event.client, _PICK_SIZE)
        self.worker.submit("target", lambda: self._measure_target(view, screen))

    def _measure_target(self, view: View, screen: tuple[float, float]) -> None:
        if not self._views:
            raise CloseupError("the photographs are not loaded yet: try again in a moment")
        self._chosen = True
        target = target_from_click(view, screen, self._views, self.render)
        self._say("")  # before it is seen: whoever picks the next one at once is told to click, and that must stay
        self._set_target(target)

    def _set_target(self, target: Target) -> None:
        self.target, self.frames.target = target, target.point
        if self._eye is not None:
            self._note_zoom(self._eye)
        say(self.panel.target, describe(target))
        self._rerender()

    def _note_zoom(self, position: torch.Tensor) -> None:
        self._eye = position
        if self.target is not None:
            zoom = zoom_of(position, self.target)
            away = self.target.distance / zoom
            say(self.panel.zoom, f"**{zoom:.2f}x** closer than the photographs ({away:.3g} from the target)")

    def come_closer(self, stops: float, client: viser.ClientHandle | None) -> None:
        """Move a client's camera to 3^``stops`` times closer than the photographs."""
        target = self.target
        if client is None or not math.isfinite(stops):  # a lone minus sign in the slider's box is NaN
            return
        if target is None:
            self._say("⚠ There is no target to come closer to: set one by a click first.")
            return
        before = self._viewport(client, _PICK_SIZE)
        position = come_closer(before.position, target, ZOOM_BASE**stops)
        with client.atomic():
            client.camera.position = to_viser(position)
            client.camera.look_at = to_viser(target.point)
        self._say("The target was behind the camera: turned to it." if is_behind(before, target.point) else "")

    # ---- what is shown

    def choose_model(self, shown: str) -> None:
        if shown == REFINED:
            self.frames.model = shown
            self._rerender()
        else:
            self.worker.submit("base model", lambda: self._show_base(shown))

    def _show_base(self, shown: str) -> None:
        try:
            self.frames.load_base()
        except CloseupError as error:
            self.panel.model.value = REFINED
            say(self.panel.overlay, f"⚠ {escape(str(error))}")
            return
        self.frames.model = shown
        self._rerender()

    def toggle_overlay(self) -> None:
        self.frames.reliable, self.frames.provenance = self.panel.reliable.value, self.panel.provenance.value
        self._rerender()

    # ---- rounds and paths

    def run_round(self) -> None:
        """Ask for the next round."""
        target = self.target if self._chosen else None
        say(self.panel.request_status, request_round(self._run, self.rounds, self.viewer.trainer, self.store, target))

    def save_path(self, client: viser.ClientHandle | None) -> None:
        name = self.panel.path_name.value.strip()
        here = client if self.panel.start.value == VIEWPORT else None
        viewport = None if here is None else self._viewport(here, _VIDEO_SIZE)
        say(self.panel.saved, "Planning the path ...")
        kind = self.panel.kind.value
        self.worker.submit("path", lambda: self._save_path(kind, viewport, name))

    def _save_path(self, kind: Kind, viewport: View | None, name: str) -> None:
        try:
            if self.target is None:
                raise CloseupError("there is no target for a path: set one by a click first")
            content = path_from(kind, viewport, self.target, self._names, self._views, self.render)
            say(self.panel.saved, write_path(content, name, self.viewer.datapath, self.store.root.parent))
        except CloseupError as error:
            say(self.panel.saved, f"⚠ {escape(str(error))}")
