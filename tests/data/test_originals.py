"""Which original belongs to which photograph, and what one that cannot be used costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.images import ORIENTATION_TAG
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


@pytest.mark.parametrize(
    ("make", "lose"),
    [
        (partial(folders.make_llff, images_bin=True), Path.unlink),
        (partial(folders.make_llff, images_bin=True), lambda path: path.rename(path.with_name("another.png"))),
        (partial(folders.make_colmap, factors=(2,), llff_names=True), Path.unlink),
    ],
)
def test_originals_beside_a_missing_one_keep_their_photographs(
    make: Callable[[Path], object],
    lose: Callable[[Path], object],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The small images are called image000.png and so on, so only COLMAP's names tell which is whose."""
    make(tmp_path)
    lose(tmp_path / "images/IMG_0002.png")
    found = {name: original.path.name for name, original in originals_of(tmp_path, 32).items() if original}
    assert f"{tmp_path / 'images'} has no picture of IMG_0002.png" in " ".join(capfd.readouterr().out.split())
    assert found == {f"image00{index}.png": f"IMG_000{index}.png" for index in (1, 3, 4, 5)}


def test_nothing_is_guessed_where_no_names_tell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folders.make_llff(tmp_path)
    (tmp_path / "images/IMG_0002.png").unlink()
    assert set(originals_of(tmp_path, 32).values()) == {None}
    assert "it has 5 pictures for 6 photographs" in " ".join(capfd.readouterr().out.split())


def test_frames_that_name_small_images_have_the_finer_ones_beside_them(capture: Path) -> None:
    path = capture / "transforms.json"
    path.write_text(path.read_text().replace("images/", "images_3/"))
    for name, original in originals_of(capture).items():
        assert original is not None and original.path == capture / "images" / name


def test_a_rig_keeps_its_folders(capture: Path) -> None:
    """Two cameras whose files have the same names; one original is lost."""
    path = capture / "transforms.json"
    text = path.read_text()
    for index in range(COUNT):
        old, new = f"frame_{index:05d}.png", f"{'left' if index % 2 else 'right'}/{index // 2}.png"
        text = text.replace(old, new)
        for folder in (capture / "images", capture / "images_3"):
            (folder / new).parent.mkdir(exist_ok=True)
            (folder / old).rename(folder / new)
    path.write_text(text)
    (capture / "images/left/0.png").unlink()
    outputs = CloseupDataParserConfig(data=capture, max_image_size=SIZE[0]).setup().get_dataparser_outputs("train")
    lost = capture / "images_3/left/0.png"
    for small, original in zip(outputs.image_filenames, outputs.metadata["originals"], strict=True):
        wanted = None if small == lost else capture / "images" / small.relative_to(capture / "images_3")
        assert (original and original.path) == wanted
    assert lost in outputs.image_filenames


@pytest.mark.parametrize("shrunk_as_stored", [False, True])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
def test_an_original_is_turned_as_its_photograph_is(
    orientation: int, turn: Image.Transpose, shrunk_as_stored: bool, capture: Path
) -> None:
    """Cameras store photographs on their side and say so in EXIF; some tools shrink them as stored, others upright."""
    exif, upright = Image.Exif(), {}
    exif[ORIENTATION_TAG] = orientation
    for path in sorted((capture / "images").iterdir()):
        upright[path.name] = Image.open(path)
        upright[path.name].transpose(turn).save(path.with_suffix(".jpg"), exif=exif, quality=95)
        path.unlink()
        if shrunk_as_stored:
            small = capture / "images_3" / path.name
            Image.open(small).transpose(turn).save(small)
    if shrunk_as_stored and orientation != 3:
        folders.edit_json(capture / "transforms.json", w=144, h=192, cx=72, cy=96)
    for name, original in originals_of(capture).items():
        wanted = upright[name].transpose(turn) if shrunk_as_stored else upright[name]
        assert original is not None and original.size == wanted.size
        pixels, _ = original.read()
        assert np.abs(pixels.astype(float) - np.asarray(wanted)).mean() < 4
