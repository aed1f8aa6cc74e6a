"""ffmpeg, which nerfstudio runs and which a bare machine may lack."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def ensure_ffmpeg_on_path() -> Path | None:
    """Make ``ffmpeg`` a command of this process and its children; the executable, or None where there is none.

    ns-render leaves with an error where no ``ffmpeg`` is on PATH, even when it only writes images. Where the system
    has none, a link of that name to the binary that the imageio-ffmpeg wheel carries is put at the *end* of PATH, in a
    folder that holds nothing else, so that no other program is shadowed. Calling it again changes nothing.
    """
    found = shutil.which("ffmpeg")
    if found:
        return Path(found)
    carried = _carried_ffmpeg()
    if carried is None:
        return None
    folder = _link_folder()
    _link(folder / "ffmpeg", carried)
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH", ""), str(folder)]))
    return folder / "ffmpeg"


def _carried_ffmpeg() -> Path | None:
    """The binary of the imageio-ffmpeg wheel. Asked for only where the system has none: it starts a process."""
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _link_folder() -> Path:
    """A folder of our own in the user's cache, or a private temporary one where the cache cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "closeup-ns" / "bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="closeup-ns-"))


def _link(link: Path, program: Path) -> None:
    """Point ``link`` at ``program`` in one step, since another process may be doing, or using, the same."""
    if link.exists() and link.resolve() == program.resolve():
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(program)
    os.replace(temporary, link)
