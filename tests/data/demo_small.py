"""A demo scene small enough for tests, rendered once per session."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from closeup_ns.data.demo.layout import still_life
from closeup_ns.data.demo.render import World
from closeup_ns.data.demo.scene import DemoNote, write_demo_scene

SIZE, FINER = (96, 72), 2
FAR, CLOSE = 16, 2


@cache
def small_demo() -> tuple[Path, DemoNote]:
    """The folder of a demo scene of 16 far photographs (2 held out) and 2 close-ups per scale. Do not write into it."""
    folder = Path(mkdtemp(prefix="closeup-demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, write_small_demo(folder)


def write_small_demo(folder: Path, exposure_drift: float = 0.0, advance: Callable[[], None] = lambda: None) -> DemoNote:
    """Render the small scene into ``folder``."""
    return write_demo_scene(
        folder,
        seed=3,
        far_count=FAR,
        size=SIZE,
        closeups_per_scale=CLOSE,
        finer=FINER,
        light_samples=4,
        exposure_drift=exposure_drift,
        advance=advance,
    )


@cache
def small_world() -> World:
    """The geometry of `small_demo`, to cast rays into."""
    return World(still_life(3), light_samples=1)
