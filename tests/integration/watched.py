"""Commands that are watched from within: `ns-train` that tells of a diffusion model, and one that a kill stops midway.
All of them take See3D's networks for small ones (tests/refine/see3d/tiny.py).

A test that waits for a file and then kills comes too late on a machine that is busy, or faster than it thought.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from dataclasses import replace

from closeup_ns.refine.judging import detail, gate
from closeup_ns.refine.see3d import stage, unet
from tests.refine.see3d.tiny import TINY_CONFIG

IMPORTED = "A diffusion model's code is imported"
CODE = ("diffusers.models", "transformers.models.clip")
"""torchmetrics imports transformers itself, everywhere in nerfstudio; a text or image tower it does not."""


def train() -> None:
    """The command's entry point."""

    def told(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import" and str(arguments[0]).startswith(CODE):
            print(f"{IMPORTED}: {arguments[0]}", flush=True)

    _with_small_networks()
    assert not [name for name in sys.modules if name.startswith(CODE)]
    sys.addaudithook(told)
    importlib.import_module("nerfstudio.scripts.train").entrypoint()


def train_small() -> None:
    """`ns-train`. Random towers refine nothing: the gate lets them through, so that rounds train on generated views."""
    _with_small_networks()
    _with_an_open_gate()
    importlib.import_module("nerfstudio.scripts.train").entrypoint()


def refine_small() -> None:
    """`closeup-gs`."""
    _with_small_networks()
    importlib.import_module("closeup_ns.cli.main").main()


def train_killed() -> None:
    """`ns-train` that is killed (SIGKILL) when the second view of a round is about to count."""
    _die_at_the_second_view()
    _with_small_networks()
    _with_an_open_gate()
    importlib.import_module("nerfstudio.scripts.train").entrypoint()


def _with_small_networks() -> None:
    """See3D's loader expects the tiny networks, and its refiner shows them squares of 64 pixels, those of SR too."""
    unet.CONFIG = TINY_CONFIG
    stage.BASE = replace(stage.BASE, side=64, overlap=16)
    stage.SR = replace(stage.SR, side=64, overlap=16)


def _with_an_open_gate() -> None:
    gate.MAX_PSNR_DROP, gate.COARSE_PSNR_DROP, gate.MAX_LOW_FREQUENCY_DIFFERENCE = 1000.0, 1000.0, 10.0
    detail.FLOOR, detail.MARGIN = -9.0, 9.0


def _die_at_the_second_view() -> None:
    headers: list[str] = []

    def told(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and os.path.basename(os.path.dirname(str(arguments[1]))) == "views":
            headers.append(str(arguments[1]))
            if len(headers) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(told)
