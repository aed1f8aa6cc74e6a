"""ffmpeg, which nerfstudio runs and which a bare machine may lack."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def ensure_ffmpeg_on_path() -> Path | None:
    """Make ``ffmpeg`` a command of this process and its children; the executable, or None where there is none.

    ns-render leaves with an error where no ``ffmpeg`` is on PATH, even when it only writes images. Where the system
    has none, a link of that name to the binary that the imageio-ffmpeg wheel carries is put at the *end* of PATH, in a
    temporary folder that holds nothing else, so that no other program is shadowed. Calling it again changes nothing.
    """
    found = shutil.which("ffmpeg")
    if found:
        return Path(found)
    carried = _carried_ffmpeg()
    if carried is None:
        return None
    folder = Path(tempfile.mkdtemp(prefix="closeup-ns-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "ffmpeg").symlink_to(carried)
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH", ""), str(folder)]))
    return folder / "ffmpeg"


def _carried_ffmpeg() -> Path | None:
    """The binary of the imageio-ffmpeg wheel. Asked for only where the system has none: it starts a process."""
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None
