"""Which original belongs to which photograph, and what one that cannot be used costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.originals import Original
from tests.data import folders
from tests.integration.captures import SIZE, write_transforms

FINER, COUNT = 3, 8


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """``images`` of 192x144 and ``images_3`` of 64x48."""
    write_transforms(tmp_path, count=COUNT, finer=FINER)
    return tmp_path


def originals_of(folder: Path, limit: int = SIZE[0]) -> dict[str, Original | None]:
    """What the parser finds for the training photographs, by file name."""
    outputs = CloseupDataParserConfig(data=folder, max_image_size=limit).setup().get_dataparser_outputs("train")
    names = [path.name for path in outputs.image_filenames]
    return dict(zip(names, outputs.metadata["originals"], strict=True))


def test_the_finest_picture_of_a_photograph_is_its_original(capture: Path) -> None:
    found = originals_of(capture)
    camera = json.loads((capture / "transforms.json").read_text())
    assert len(found) > 4
    for name, original in found.items():
        assert original is not None and original.path == capture / "images" / name
        assert original.size == (FINER * SIZE[0], FINER * SIZE[1]) and original.finer == FINER
        assert original.K[0][0] == pytest.approx(camera["fl_x"]) and original.K[1][2] == pytest.approx(camera["cy"])
        pixels, mask = original.read()
        assert mask is None and np.array_equal(pixels, np.asarray(Image.open(original.path)))


def test_a_photograph_that_is_shrunk_when_loaded_is_its_own_original(capture: Path) -> None:
    shutil.rmtree(capture / "images_3")
    found = originals_of(capture, 96)
    assert {original.finer for original in found.values() if original} == {2.0} and None not in found.values()
    assert originals_of(capture, 192) == dict.fromkeys(found)  # as fine as trained on: nothing to learn


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (Path.unlink, "no original for frame_00000.png"),
    (lambda path: path.write_bytes(path.read_bytes()[:20]), "frame_00000.png"),
    (lambda path: Image.new("RGB", (192, 100)).save(path), "192x100"),
    (folders.turn, "144x192"),
    (lambda path: Image.new("RGB", (32, 24)).save(path), "no original for frame_00000.png"),
]
"""Missing, damaged, of another shape, turned, or smaller than what is trained on."""


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_an_original_that_cannot_be_used_costs_its_own_photograph_only(
    damage: Callable[[Path], object], said: str, capture: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(capture / "images" / "frame_00000.png")
    found = originals_of(capture)
    assert found.pop("frame_00000.png") is None and None not in found.values()
    assert said in " ".join(capfd.readouterr().out.split())
