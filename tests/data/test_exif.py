"""What EXIF says of an exposure, and what it only seems to say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from closeup_ns.data.images import EXIF_BLOCK, exif_orientation, exposure_stops

TAGS = {"time": 0x829A, "f_number": 0x829D, "iso": 0x8827}
SOUND: dict[str, Any] = {"time": IFDRational(1, 50), "f_number": IFDRational(9, 5), "iso": 64}


def written(path: Path, values: dict[str, Any], image: Image.Image | None = None) -> Path:
    image, exif = image or Image.new("RGB", (8, 6)), Image.Exif()
    exif.get_ifd(EXIF_BLOCK).update({TAGS[name]: value for name, value in values.items()})
    image.save(path, exif=exif)
    return path


def test_stops_are_of_the_light_on_the_sensor_and_its_gain(tmp_path: Path) -> None:
    found = exposure_stops(written(tmp_path / "a.jpg", SOUND))
    assert found == pytest.approx(math.log2(64 / 50 / 1.8**2))
    longer = exposure_stops(written(tmp_path / "b.jpg", SOUND | {"time": IFDRational(1, 25)}))
    assert longer is not None and longer - found == pytest.approx(1.0)
    closed = exposure_stops(written(tmp_path / "c.jpg", SOUND | {"f_number": IFDRational(18, 5)}))
    assert closed is not None and closed - found == pytest.approx(-2.0)


@pytest.mark.parametrize(
    "lie",
    [
        {"time": IFDRational(0, 1)},
        {"time": IFDRational(1, 0)},
        {"time": IFDRational(20231105, 1)},
        {"f_number": IFDRational(0, 10)},
        {"iso": 0},
        {"iso": 20231105},
        {"time": None},
        {"f_number": None},
        {"iso": None},
    ],
    ids=str,
)
def test_a_value_that_no_camera_has_is_none(tmp_path: Path, lie: dict[str, Any]) -> None:
    values = {name: value for name, value in (SOUND | lie).items() if value is not None}
    assert exposure_stops(written(tmp_path / "a.jpg", values)) is None


def test_files_without_exif_say_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    assert [exposure_stops(tmp_path / name) for name in ("a.jpg", "a.png", "broken.jpg", "none.jpg")] == [None] * 4


@pytest.mark.parametrize("value", [0, 255])
def test_damaged_exif_is_never_an_error(tmp_path: Path, value: int) -> None:
    content = written(tmp_path / "a.jpg", SOUND).read_bytes()
    start = content.index(b"Exif")
    for place in range(start + 6, start + 110):
        (tmp_path / "a.jpg").write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        assert isinstance(exposure_stops(tmp_path / "a.jpg"), float | None)
        assert exif_orientation(tmp_path / "a.jpg") in range(1, 9)
