"""Upstream breakages, mended in one place (research/nerfstudio.md, section 0).

* torch >= 2.6 refuses nerfstudio's own checkpoints, because a scheduler leaves numpy scalars in the optimizer state.
* A run that is loaded does not know where its config.yml lies, only where it was trained.
* An event writer (tensorboard, wandb) that fails ends the training.
* Photographs of FISHEYE624 lenses are undistorted with columns for rows.
* viser looks through all processes of the machine for its own build server, and dies when one of them ends meanwhile.
* Commands that need a field of rays, or two held-out photographs, end in assertions of their own.
* What ns-train says of an input that it cannot use lies below forty lines of traceback.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from closeup_ns.errors import CloseupError, say_error


def allow_nerfstudio_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read the numpy scalars of nerfstudio checkpoints, and nothing else."""
    scalar = np.core.multiarray.scalar  # type: ignore[attr-defined]
    torch.serialization.add_safe_globals([scalar, np.dtype, type(np.dtype(np.float64))])


def start_without_build_server() -> None:
    """Let viser's server start without looking for `yarn start` of viser's own developers among all processes."""
    from viser import _client_autobuild

    _client_autobuild._check_viser_yarn_running = lambda: False


def undistort_fisheye624_upright() -> None:
    """Let nerfstudio undistort FISHEYE624 photographs as their lens sees them.

    Its routine takes columns for rows on both sides, so that ``cx`` and ``cy``, both tangential parameters and the
    sides of the disc that it lets count are exchanged. Here it gets the transposed photograph, and its result is
    transposed back.
    """
    from nerfstudio.data.datamanagers import full_images_datamanager as module

    undistort = module._undistort_image

    def upright(camera: Cameras, distortion: Any, data: dict, image: Any, K: Any) -> tuple[Any, Any, Tensor | None]:
        if camera.camera_type.item() != CameraType.FISHEYE624.value:
            return undistort(camera, distortion, data, image, K)
        exchanged = replace(camera, width=camera.height, height=camera.width)
        K, image, mask = undistort(exchanged, distortion, data, image.swapaxes(0, 1), K)
        assert mask is not None, "the disc that it lets count"
        return K, np.ascontiguousarray(image.swapaxes(0, 1)), mask.transpose(0, 1).contiguous()

    module._undistort_image = upright


def show_errors_as_lines() -> None:
    """Let a `CloseupError` that ends an ns-* command be shown as closeup-gs shows it, without its traceback.

    With ``CLOSEUP_DEBUG=1``, and for every other error, it is the hook that was there before.
    """
    before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, CloseupError) and not os.environ.get("CLOSEUP_DEBUG"):
            say_error(Path(sys.argv[0]).name, str(error))
        else:
            before(kind, error, trace)

    sys.excepthook = show


def config_being_loaded() -> Path | None:
    """The config.yml that nerfstudio's ``eval_setup`` is loading, for the config method that it calls; else None.

    ``eval_setup`` asks a config for its checkpoints and does not say where the config came from, so its caller's frame
    is looked at: ns-eval, ns-render, ns-export and ns-viewer have no other seam.
    """
    frame = sys._getframe(2)
    return frame.f_locals["config_path"] if frame.f_code.co_name == "eval_setup" else None


_SPLATS_ONLY = "this exporter follows rays, which splats have not: use ns-export gaussian-splat, or closeup-gs export"
UNABLE = {
    "SpiralRender": "ns-render spiral serves methods that train on rays: make a path with closeup-gs path --kind orbit "
    "--output path.json, and render it with ns-render camera-path --camera-path-filename path.json",
    "ExportPointCloud": _SPLATS_ONLY,
    "ExportPoissonMesh": _SPLATS_ONLY,
    "ExportTSDFMesh": _SPLATS_ONLY,
    "ExportMarchingCubesMesh": _SPLATS_ONLY,
}
"""nerfstudio's commands, by the name of their class, that cannot work on splats, and what can."""


def refuse_command(held_out: int) -> None:
    """Refuse what the nerfstudio command that is loading a run cannot do with it, before it does anything.

    ``eval_setup`` does not say who called it, so that frame is looked at.

    Args:
        held_out: photographs of the evaluation split.

    Raises:
        CloseupError: it says which command or option to use instead.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "eval_setup":
        frame = frame.f_back
    caller = frame.f_back if frame is not None else None
    command: Any = caller.f_locals.get("self") if caller is not None else None
    name = type(command).__name__
    if name in UNABLE:
        raise CloseupError(UNABLE[name])
    if name == "RenderInterpolated" and command.pose_source == "eval" and held_out < 2:
        raise CloseupError(
            f"ns-render interpolate needs two photographs, and {held_out} of this capture is held out: add "
            "--pose-source train"
        )
    if getattr(command, "render_nearest_camera", False):
        raise CloseupError("ns-render --render-nearest-camera traces rays, which splats do not have: leave it out")


class ForgivingWriter:
    """An event writer whose failure costs its own events and not the training; it is said once."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._failed = inner, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*arguments: Any) -> None:
            if self._failed:
                return
            try:
                method(*arguments)
            except Exception as error:
                self._failed = True
                said = f"{type(self._inner).__name__} fails ({error}): the training goes on without its events"
                CONSOLE.print(f"[yellow]{said}", soft_wrap=True)

        return call


def forgive_event_writers() -> None:
    """Let no event writer that is set up now end the training later."""
    from nerfstudio.utils import writer  # not at the top: imported before nerfstudio's configs it fails on itself

    writer.EVENT_WRITERS[:] = [
        each if isinstance(each, (writer.LocalWriter, ForgivingWriter)) else ForgivingWriter(each)
        for each in writer.EVENT_WRITERS
    ]
