"""Which images a capture is trained on, at which size, and how they are loaded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from closeup_ns.data.dataparser import CloseupDataParserConfig
from closeup_ns.data.dataset import CloseupDataset, decode_image
from closeup_ns.data.images import choose_images, image_folders, image_size, list_images, match_by_name, match_by_order
from closeup_ns.data.names import FileLookup
from closeup_ns.errors import DataError
from closeup_ns.studio.datamanager import CloseupDatamanager, CloseupDatamanagerConfig
from tests.data import folders

FULL = (640, 480)


def dataset(path: Path, scale_factor: float = 1.0, **options: Any) -> CloseupDataset:
    config = CloseupDataParserConfig(data=path, train_on_all=True, **options)
    return CloseupDataset(config.setup().get_dataparser_outputs(), scale_factor)


@pytest.mark.parametrize(
    ("factors", "wanted", "limit", "factor", "size"),
    [
        ([1, 2, 4], None, 1600, 1, (640, 480)),  # everything fits: the largest
        ([1, 2, 4], None, 640, 1, (640, 480)),  # the limit itself fits
        ([1, 2, 4], None, 639, 1, (639, 479)),  # images_2 is half of what is allowed: images/ is shrunk
        ([1, 2, 4], None, 480, 2, (320, 240)),  # 1.5 times images_2 is near enough
        ([1, 2, 4], None, 481, 1, (481, 361)),
        ([1, 2, 4], None, 200, 4, (160, 120)),
        ([1, 2, 4], None, 300, 2, (300, 225)),
        ([1, 2, 4], None, None, 1, (640, 480)),
        ([4, 8], None, 1600, 4, (160, 120)),  # no images/: the largest there is
        ([1], None, 320, 1, (320, 240)),  # nothing fits: shrunk when loaded
        ([1, 2, 4], 2, 10, 2, (320, 240)),
        ([1, 2, 4], 1, 10, 1, (640, 480)),
        ([1, 2], 8, 10, 2, (80, 60)),  # no images_8: the nearest larger ones, shrunk when loaded
        ([1], 3, 10, 1, (213, 160)),
        ([4, 8], 2, 10, 4, (160, 120)),  # never enlarged
    ],
)
def test_which_images_at_which_size(
    factors: list[int], wanted: int | None, limit: int | None, factor: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """Of one photograph of 640x480 with these images_N beside it."""
    sets = {each: [tmp_path / f"images_{each}/a.png"] for each in factors}
    for each, (path,) in sets.items():
        folders.save_image(path, np.zeros((FULL[1] // each, FULL[0] // each, 3), np.uint8))
    choice = choose_images(sets, [FULL], wanted, limit)
    assert (choice.factor, choice.sizes) == (factor, [size])


def test_images_with_their_own_sizes_keep_them(tmp_path: Path) -> None:
    """Two cameras in one capture: only what exceeds the limit is shrunk, keeping its shape."""
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    folders.save_image(paths[0], np.zeros((30, 90, 3), np.uint8))
    folders.save_image(paths[1], np.zeros((40, 20, 3), np.uint8))
    choice = choose_images({1: paths}, [(90, 30), (20, 40)], None, 60)
    assert choice.sizes == [(60, 20), (20, 40)]


def test_only_real_images_are_listed(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "._a.png", "notes.txt", "c.jpeg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]


def test_image_folders(tmp_path: Path) -> None:
    for name in ("images_8", "images", "images_12", "images_x", "images_0", "my_images", "images_1008x756"):
        (tmp_path / name).mkdir()
    assert [(factor, folder.name) for factor, folder in image_folders(tmp_path).items()] == [
        (1, "images"), (8, "images_8"), (12, "images_12"),
    ]  # fmt: skip


def test_matching_by_name_and_by_order(tmp_path: Path) -> None:
    for name in ("image000.png", "image001.png", "image002.png"):
        (tmp_path / name).touch()
    originals = ["IMG_7.JPG", "IMG_3.JPG", "IMG_5.JPG"]
    assert match_by_name(tmp_path, originals) is None
    matched = match_by_order(tmp_path, ["IMG_7.JPG", "IMG_3.JPG"], originals)
    assert matched is not None
    assert [path.name for path in matched] == ["image002.png", "image000.png"]
    assert match_by_order(tmp_path, originals, originals[:2]) is None  # counts differ: nobody knows
    assert match_by_name(tmp_path, ["image002.JPG"]) == [tmp_path / "image002.png"]


def test_names_are_found_however_they_are_written(tmp_path: Path) -> None:
    """Separators, Unicode forms, case, suffix, blanks and byte order marks; never where two could be meant."""
    for name in ("Left/Caf\u00e9 (1).JPG", "b.png", "B.png", "c.jpg", "c.png", "r_0.png"):
        folders.save_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    (tmp_path.parent / "outside.png").touch()
    for written, found in {
        "left\\Cafe\u0301 (1).jpg": "Left/Caf\u00e9 (1).JPG",
        "\ufeffLEFT/caf\u00e9 (1).png ": "Left/Caf\u00e9 (1).JPG",
        "./r_0": "r_0.png",
        "b.png": "b.png",
        "b.jpg": None,
        "c.webp": None,
        "d.png": None,
        "..\\outside.png": None,
    }.items():
        assert FileLookup().find(tmp_path, written) == (tmp_path / found if found else None), written


def test_shrinking_averages_over_areas(tmp_path: Path) -> None:
    """Oracle: a mean over exact blocks, for a whole factor; the overall mean, for any."""
    folders.make_transforms(tmp_path, n=2)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    folders.save_image(tmp_path / "images/frame_00000.png", pixels)
    image = dataset(tmp_path, downscale_factor=4).get_numpy_image(0)
    blocks = pixels.reshape(12, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(image - blocks).max() <= 0.51
    smaller = dataset(tmp_path, max_image_size=50)
    image = smaller.get_numpy_image(0)
    assert image.shape == (38, 50, 3)
    assert image.mean() == pytest.approx(pixels.mean(), abs=0.6)
    assert smaller.cameras.fy[0].item() / 38 == pytest.approx(64 * 0.9 * 1.01 / 48, rel=1e-6)


@pytest.mark.parametrize(("mode", "channels"), [("L", 3), ("P", 3), ("RGBA", 4), ("LA", 4), ("1", 3), ("RGB", 3)])
def test_kinds_of_images(mode: str, channels: int, tmp_path: Path) -> None:
    folders.make_transforms(tmp_path, n=2)
    path = tmp_path / "images/frame_00000.png"
    Image.open(path).convert(mode).save(path)
    image = dataset(tmp_path).get_numpy_image(0)
    assert image.shape == (48, 64, channels) and image.dtype == np.uint8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_read(kind: str, tmp_path: Path) -> None:
    grey = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    Image.fromarray(grey).save(tmp_path / "a.png", kind)
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.stack([grey // 256] * 3, 2))


@pytest.mark.parametrize(("width", "height", "fits"), [(16384, 12288, True), (32766, 32766, True), (40000, 10, False)])
def test_photographs_of_200_megapixels_are_read(width: int, height: int, fits: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    folders.save_image(path, np.zeros((2, 2), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    if fits:
        assert image_size(path) == (width, height)
    else:
        with pytest.raises(DataError, match="40000x10; at most 32766 pixels along a side"):
            image_size(path)


def test_sizes_survive_undistortion_of_the_cameras(tmp_path: Path) -> None:
    """nerfstudio's datamanager writes the cropped size into the dataset's cameras; loading again must not use it."""
    folders.make_transforms(tmp_path, n=2)
    data = dataset(tmp_path)
    data.cameras.width[0] = 60
    assert data.get_numpy_image(0).shape == (48, 64, 3)


def test_scale_factor_of_the_datamanager(tmp_path: Path) -> None:
    """camera_res_scale_factor shrinks images, masks and cameras alike."""
    folders.make_transforms(tmp_path, n=2, masks=True)
    half = dataset(tmp_path, 0.5)
    data = half.get_data(0)
    assert data["image"].shape == (24, 32, 3) and data["mask"].shape == (24, 32, 1)
    assert (half.cameras.width[0].item(), half.cameras.height[0].item()) == (32, 24)


def masked(path: Path, mask: np.ndarray, size: int, k1: float = 0.0, suffix: str = ".png") -> CloseupDatamanager:
    """A capture whose photographs are magenta where ``mask`` is 0 and green elsewhere, loaded at ``size``."""
    folders.make_transforms(path, n=2, size=mask.shape[::-1], masks=True)
    folders.edit_json(path / "transforms.json", k1=k1)
    for index in range(2):
        pixels = np.where(mask[..., None] > 127, [0, 255, 0], [255, 0, 255]).astype(np.uint8)
        folders.save_image(path / f"images/frame_{index:05d}.png", pixels)
        (path / f"masks/frame_{index:05d}.png").unlink()
        Image.fromarray(mask).save(path / f"masks/frame_{index:05d}{suffix}", quality=70)
    parser = CloseupDataParserConfig(data=path, max_image_size=size, train_on_all=True)
    return CloseupDatamanagerConfig(data=path, dataparser=parser).setup(device="cpu")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(("size", "k1"), [(96, 0.0), (96, 0.1), (41, 0.0), (41, -0.1), (24, 0.1)])
def test_no_hidden_colour_counts(size: int, k1: float, suffix: str, tmp_path: Path) -> None:
    """Whatever shrinks or undistorts the photograph does the same to its mask; and little that is seen is lost."""
    y, x = np.mgrid[:72, :96]
    mask = np.where((x - 47) ** 2 + (y - 35) ** 2 < 29**2, 255, 0).astype(np.uint8)
    data = masked(tmp_path, mask, size, k1, suffix)
    counted, photograph = data.counted(0), data.photograph(0)
    assert counted is not None
    assert (photograph[counted] == torch.tensor([0.0, 1.0, 0.0])).all()
    seen = (photograph[..., 1] > 0.99).float().mean()
    assert 0.75 * seen < counted.float().mean() <= seen


@pytest.mark.parametrize(
    ("values", "expected"),
    [((255, 0), "Masks: 50.0% of the pixels of 2 train photographs count."), ((1, 0), "Masks: 50.0%"),
     ((255, 255), "2 hide nothing: is the mask in the alpha channel"), ((0, 0), "all 2 training photographs hide")],
)  # fmt: skip
def test_what_masks_hide_is_said(
    values: tuple[int, int], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.full((48, 64), values[0], np.uint8)
    mask[:, 32:] = values[1]
    data = masked(tmp_path, mask, 64)
    if any(values):
        data.photograph(0)
        assert expected in " ".join(capsys.readouterr().out.split())
    else:
        with pytest.raises(DataError, match=expected):
            data.photograph(0)
