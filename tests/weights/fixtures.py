"""A hub on this machine with tiny weights in it, and an empty cache; a module that wants it names this one.

pytest_plugins = ("tests.weights.fixtures",)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from closeup_ns.refine.options import SEE3D_HUB, SEE3D_REVISION
from closeup_ns.refine.see3d.tiny import write_tiny_weights
from tests.weights.fake_hub import FakeHub, serving

CARD = "---\nlicense: other\nlicense_name: example-1.0\n---\n# Example\n"


@pytest.fixture(scope="session")
def published_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub publishes: the layout, the card, and a file that nobody needs."""
    folder = tmp_path_factory.mktemp("published")
    generator = torch.Generator().manual_seed(2)
    write_tiny_weights(folder, generator, widths=(32,), vae_width=4, image_size=28)
    (folder / "README.md").write_text(CARD)
    needless = folder / "checkpoint" / "MVD_weights" / "CLIP-ViT-H-14-laion2B-s32B-b79K"
    (needless / "open_clip_pytorch_model.bin").write_bytes(b"\0" * 1000)
    return folder


@pytest.fixture
def hub(published_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub that huggingface_hub asks; its cache is empty."""
    from huggingface_hub import constants, file_download

    root = Path(shutil.copytree(published_folder, tmp_path / "published"))
    with serving(FakeHub(root, SEE3D_HUB, SEE3D_REVISION)) as served:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        # Its retries wait a second each.
        patient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr(file_download, "time", patient)
        yield served
