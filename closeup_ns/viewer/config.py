"""What a user can set about the viewer's panel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ViewerPanelConfig:
    """The close-up panel of nerfstudio's viewer (``ns-train`` with the viewer on, and ``ns-viewer``)."""

    enabled: bool = True
    """Show the panel."""
    mask_size: int = 160
    """Long side, in pixels, at which reliable pixels and provenance are measured. Larger is finer and slower."""
    photographs: int = 64
    """Most photographs that those overlays ask; of larger captures, this many evenly spaced ones."""
    frustum_size: float = 0.06
    """Length of a camera's frustum, as a share of its distance to the target."""
    thumbnail: int = 128
    """Long side, in pixels, of the refined image that is shown on a frustum."""
    path_zoom: float | None = None
    """How close the path that the panel saves comes: times closer than the photographs. Default: 27; an orbit 3."""
    path_seconds: float = 8.0
    """Its length."""
    path_fps: float = 30.0
    """Its frames per second."""
