"""Frustums in viser's scene. Knows viser, decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import viser
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

from closeup_ns.errors import RoundStorageError
from closeup_ns.paths.geometry import vertical_fov
from closeup_ns.viewer.frustums import COLORS, CameraMark, frustum_scale, thumbnail
from closeup_ns.viewer.viewport import pose_of, to_viser
from closeup_ns.views.view import View

FRUSTUM_SIZE = 0.06
"""Length of a camera's frustum, as a share of its distance to the target."""
THUMBNAIL = 128
"""Long side, in pixels, of the refined image that is shown on a frustum."""
Clicked = Callable[[CameraMark, viser.ClientHandle], None]


class Scene:
    """What the panel adds to the scene, and when nerfstudio's own cameras are in the way."""

    def __init__(self, server: viser.ViserServer, clicked: Clicked) -> None:
        """``clicked`` is told which frustum was clicked by whom."""
        self.server, self.clicked = server, clicked
        self.frustums: dict[str, tuple[CameraMark, viser.CameraFrustumHandle]] = {}

    def draw(self, marks: Iterable[CameraMark]) -> None:
        """Draw cameras, in the stead of what had the same name. They are hidden until `show` is called."""
        for mark in marks:
            wxyz, position = pose_of(mark.view)
            try:
                image = thumbnail(mark.picture, THUMBNAIL) if mark.picture else None
            except RoundStorageError:  # whoever clicks on it is told
                image = None
            handle = self.server.scene.add_camera_frustum(
                mark.path,
                fov=vertical_fov(mark.view),
                aspect=mark.view.width / mark.view.height,
                scale=frustum_scale(mark, FRUSTUM_SIZE) * VISER_NERFSTUDIO_SCALE_RATIO,
                color=COLORS[mark.kind],
                image=image,
                wxyz=wxyz,
                position=position,
                visible=False,
            )
            handle.on_click(lambda event, mark=mark: self.clicked(mark, event.client))
            self.frustums[mark.path] = (mark, handle)

    def show(self, visible: Callable[[CameraMark], bool], eyes: Sequence[np.ndarray]) -> None:
        """Show the cameras that are ``visible``, but none of those that one of the ``eyes`` (viser's world) is in."""
        for mark, handle in list(self.frustums.values()):
            show_unless_inside(handle, mark.distance, visible(mark), eyes)


def show_unless_inside(
    handle: viser.CameraFrustumHandle, away: float, visible: bool, eyes: Sequence[np.ndarray]
) -> None:
    """Show or hide a frustum whose camera is ``away`` (world) from the target. None that one of the ``eyes`` is in.

    From within a frustum one would see little but its edges, and nerfstudio's show a photograph over the picture.
    """
    length = FRUSTUM_SIZE * away * VISER_NERFSTUDIO_SCALE_RATIO
    visible = visible and all(float(np.linalg.norm(np.asarray(handle.position) - eye)) >= length for eye in eyes)
    if handle.visible != visible:  # each change is a message to every browser
        handle.visible = visible


def jump(client: viser.ClientHandle, view: View, away: float) -> None:
    """Put a client's camera where ``view`` is; it orbits what is ``away`` in front of it."""
    wxyz, position = pose_of(view)
    with client.atomic():
        client.camera.position = position
        client.camera.wxyz = wxyz
        client.camera.look_at = to_viser(view.position + away * view.forward)
