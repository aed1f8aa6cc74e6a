"""Frustums and the target's marker in viser's scene. Knows viser, decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import viser
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO

from closeup_ns.planning.target import Target
from closeup_ns.viewer.config import ViewerPanelConfig
from closeup_ns.viewer.frustums import COLORS, CameraMark, frustum_scale, thumbnail
from closeup_ns.viewer.viewport import pose_of, to_viser, vertical_fov

MARKER, MARKER_COLOR = "/closeup/target", (235, 60, 60)
_MARKER_SIZE = 0.012
Clicked = Callable[[CameraMark, viser.ClientHandle], None]


class Scene:
    """What the panel adds to the scene."""

    def __init__(self, server: viser.ViserServer, config: ViewerPanelConfig, clicked: Clicked) -> None:
        """``clicked`` is told which frustum was clicked by whom."""
        self.server, self.config, self.clicked = server, config, clicked
        self.frustums: dict[str, tuple[CameraMark, viser.CameraFrustumHandle]] = {}

    def draw(self, marks: Iterable[CameraMark], visible: Callable[[CameraMark], bool]) -> None:
        """Draw cameras, in the stead of what had the same name."""
        for mark in marks:
            pose = pose_of(mark.view)
            handle = self.server.scene.add_camera_frustum(
                mark.path,
                fov=vertical_fov(mark.view),
                aspect=mark.view.width / mark.view.height,
                scale=frustum_scale(mark, self.config.frustum_size) * VISER_NERFSTUDIO_SCALE_RATIO,
                color=COLORS[mark.kind],
                image=thumbnail(mark.picture, self.config.thumbnail) if mark.picture else None,
                wxyz=pose.wxyz,
                position=pose.position,
                visible=visible(mark),
            )
            handle.on_click(self._on_click(mark))
            self.frustums[mark.path] = (mark, handle)

    def _on_click(self, mark: CameraMark) -> Callable[[viser.SceneNodePointerEvent], None]:
        def told(event: viser.SceneNodePointerEvent) -> None:
            self.clicked(mark, event.client)

        return told

    def show(self, visible: Callable[[CameraMark], bool]) -> None:
        """Show and hide what is drawn."""
        for mark, handle in self.frustums.values():
            handle.visible = visible(mark)

    def draw_target(self, target: Target, zoom: float) -> None:
        """The target as a sphere that looks equally large at every ``zoom``, with its distance and reliability."""
        scene, place = self.server.scene, to_viser(target.point)
        radius = _MARKER_SIZE * target.distance / max(zoom, 1e-3) * VISER_NERFSTUDIO_SCALE_RATIO
        scene.add_icosphere(MARKER, radius=radius, color=MARKER_COLOR, position=place)
        scene.add_label(f"{MARKER}/label", f"target: {target.distance:.3g} away, {target.reliability:.0%} reliable")


def jump(client: viser.ClientHandle, mark: CameraMark) -> None:
    """Put a client's camera where ``mark`` is."""
    pose = pose_of(mark.view)
    with client.atomic():
        client.camera.position = pose.position
        client.camera.wxyz = pose.wxyz
