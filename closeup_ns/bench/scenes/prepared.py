"""A prepared scene of a protocol: the training photographs and the test cameras.

Layout of a scene's folder::

    capture/transforms.json   what ns-train gets, with its images and points; no applied_transform, explicit splits
    cameras.json              where renders are made (closeup_ns.data.eval_cameras); far views have scale 1
    truth/                    photographs of those cameras; outside of capture, so that no training sees them
    scene.json                `SceneRecord`

A scene that ns-eval scores has no cameras.json and no truth/, and its capture is a link to the data itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from closeup_ns.atomic import write_json
from closeup_ns.data.eval_cameras import EvalCamera, read_cameras
from closeup_ns.reading import read_json


@dataclass(frozen=True)
class SceneRecord:
    """What is known of a prepared scene."""

    protocol: str
    scene: str
    target_pixel: str = ""
    """The object of interest as a user would click it: NAME:COLUMN:ROW on a training photograph; "" finds it."""
    target_point: tuple[float, float, float] | None = None
    """The same in the capture's frame, where it is known."""
    target_xyz: tuple[float, float, float] | None = None
    """The same in the model's frame (the viewer's coordinates), for rows that train on photographs of several sizes."""
    image_side: int = 0
    """Longest side, in pixels, of the photographs that are trained on; 0: as each method has it."""
    scored_by: Literal["renders", "ns-eval"] = "renders"
    """renders: of cameras.json, against truth/. ns-eval: held-out photographs, and crops of their originals."""
    frontier: str = ""
    """File in the folder with cameras that a method may use as its frontier (LERF, the paper's way); "" for none."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the figures must know: how it was split, what differs from the paper."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Settings that it was prepared with. JSON-able; a folder prepared with others is prepared anew."""

    def write(self, folder: Path) -> None:
        """Write scene.json; last of all, so that its presence says that the scene is whole."""
        write_json(folder / "scene.json", asdict(self))


@dataclass(frozen=True)
class PreparedScene:
    """A prepared scene on disk."""

    record: SceneRecord
    folder: Path

    @property
    def capture(self) -> Path:
        """What ns-train gets as --data."""
        return self.folder / "capture"

    def cameras(self) -> list[EvalCamera]:
        """Where renders are made, far views first."""
        return sorted(read_cameras(self.folder / "cameras.json"), key=lambda camera: (camera.scale, camera.name))


def read_scene(folder: Path) -> PreparedScene:
    """Read a prepared scene. DataError where it is missing, unfinished or damaged."""
    remedy = f"Remove {folder}, and the bench prepares it again"
    return PreparedScene(read_json(folder / "scene.json", SceneRecord, remedy), folder)
