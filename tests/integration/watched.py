"""`ns-train` that says in its output when something of a diffusion model is imported."""

from __future__ import annotations

import importlib
import sys

IMPORTED = "A diffusion model's code is imported"
CODE = ("diffusers", "transformers.models.clip")
"""torchmetrics imports transformers itself, everywhere in nerfstudio; a text or image tower it does not."""


def train() -> None:
    """The command's entry point."""

    def told(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import" and str(arguments[0]).startswith(CODE):
            print(f"{IMPORTED}: {arguments[0]}", flush=True)

    assert not [name for name in sys.modules if name.startswith(CODE)]
    sys.addaudithook(told)
    importlib.import_module("nerfstudio.scripts.train").entrypoint()
