"""Image files on disk: headers, the folders images/, images_2/, ... of a capture, and which of them to train on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from closeup_ns.data.names import IMAGE_SUFFIXES, FileLookup
from closeup_ns.errors import DataError
from closeup_ns.reading import reading

ORIENTATION_TAG, EXIF_BLOCK = 0x112, 0x8769
"""EXIF's."""
TIME, F_NUMBER, ISO = (0x829A, (1e-6, 4000.0)), (0x829D, (0.5, 128.0)), (0x8827, (1.0, 4e6))
"""EXIF's tags of an exposure, and between what a camera's values are: a zero or a date as a number is none."""
NEAR_THE_LIMIT = 1.5
"""A folder of smaller images is used as it is when the limit is at most so many times larger."""
LARGEST_SIDE = 32766
"""Pixels along a side of an image, which is what cv2.remap reads: 1.07 gigapixels. Pillow refuses a sixth of it."""
Image.MAX_IMAGE_PIXELS = LARGEST_SIDE**2

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class ImageChoice:
    """The images to train on: one file per frame, its size on disk, and the size it is brought to when loaded."""

    factor: int
    paths: list[Path]
    file_sizes: list[Size]
    sizes: list[Size]
    reason: str
    """Why this set and this size, in words for the log line."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file, opened; a failure in opening or within the block is a DataError that names the file."""
    with reading(f"The image {path}", "It may be cut off: copy it again, or remove it with its camera."):
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            with open(path, "rb") as opened:
                if opened.read(8)[4:] != b"ftyp":  # of HEIC, whatever the file is called
                    raise
            image = _open_heic(path)
        with image:
            if max(image.size) > LARGEST_SIDE:
                raise DataError(
                    f"The image {path} is {image.width}x{image.height}; at most {LARGEST_SIDE} pixels along a side can "
                    "be read. Shrink it."
                )
            yield image


def _open_heic(path: Path) -> Image.Image:
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found]
    except ImportError as error:
        raise DataError(
            f"The image {path} is a HEIC file, which needs the package pillow-heif ('pip install pillow-heif'). Or "
            "convert the photographs to JPEG ('mogrify -format jpg'); a capture that names HEIC files finds them."
        ) from error
    register_heif_opener()
    return Image.open(path)


def image_size(path: Path) -> Size:
    """(width, height) from the file's header, without decoding it. DataError when missing or not an image."""
    with open_image(path) as image:
        return image.size


def read_exif(path: Path, block: int | None = None) -> dict[int, Any]:
    """EXIF's tags of a JPEG, or those in a ``block`` of them. None where it has none, or for other kinds of files."""
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return {}
    try:
        with open_image(path) as image:
            exif = image.getexif()
            return dict(exif if block is None else exif.get_ifd(block))
    except DataError:
        return {}  # whoever loads the picture says what is wrong with it


def exif_orientation(path: Path) -> int:
    """How a JPEG says that it is to be turned for looking at it: 1 as it is, 3 upside down, 6 and 8 on its side."""
    orientation = read_exif(path).get(ORIENTATION_TAG, 1)
    return orientation if orientation in range(1, 9) else 1


def exposure_stops(path: Path) -> float | None:
    """Exposure of a JPEG as log2 of time x ISO / f-number^2; None where the file does not soundly say all three."""
    block = read_exif(path, EXIF_BLOCK)
    time, f_number, iso = (_sound(block.get(tag), limits) for tag, limits in (TIME, F_NUMBER, ISO))
    return None if time is None or f_number is None or iso is None else math.log2(time * iso / f_number**2)


def _sound(value: Any, limits: tuple[float, float]) -> float | None:
    first: Any = value[0] if isinstance(value, tuple) and value else value  # some cameras give ISO twice
    try:
        number = float(first)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if limits[0] <= number <= limits[1] else None  # false for NaN


def list_images(folder: Path) -> list[Path]:
    """The image files directly inside ``folder``, sorted by name; hidden files (``._x.jpg``) are not images."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_folders(root: Path) -> dict[int, Path]:
    """Downscale factor -> folder, for ``images`` (1) and every ``images_N`` below ``root``, smallest factor first."""
    found: dict[int, Path] = {}
    for folder in root.iterdir():
        match = re.fullmatch(r"images(?:_([1-9]\d*))?", folder.name)
        if match and folder.is_dir():
            found.setdefault(int(match.group(1) or 1), folder)
    return dict(sorted(found.items()))


def match_by_name(folder: Path, names: Sequence[str]) -> list[Path] | None:
    """The files of ``folder`` called ``names``, however they are written (see `FileLookup`); None where one lacks."""
    lookup = FileLookup()
    matched = [path for name in names if (path := lookup.find(folder, name)) is not None]
    return matched if len(set(matched)) == len(names) else None


def match_by_order(folder: Path, names: Sequence[str], all_names: Sequence[str]) -> list[Path] | None:
    """The files of ``folder`` that stand, in sorted order, where ``names`` stand in the sorted ``all_names``, or None.

    LLFF ships its small images as image000.png, image001.png, ... in the sorted order of the original names. The
    count must be the same, or nothing is known about which is which.
    """
    files = list_images(folder)
    if len(files) != len(all_names):
        return None
    position = {name: index for index, name in enumerate(sorted(all_names))}
    if any(name not in position for name in names):
        return None
    return [files[position[name]] for name in names]


def complete_sets(root: Path, names: Sequence[str], count: int | None = None) -> dict[int, list[Path]]:
    """Downscale factor -> files, for each of images/ and images_N/ that has all photographs called ``names``.

    Where there are no such names, or a folder has none of them, ``count`` files are taken for them in sorted order.
    """
    everything = sorted({path.name for path in list_images(root / "images")}.union(names))
    sets: dict[int, list[Path]] = {}
    for factor, folder in image_folders(root).items():
        files, paths = list_images(folder), match_by_name(folder, names)
        if not paths and len(files) == count and {path.name for path in files}.isdisjoint(names):
            paths = files
        if paths := paths or match_by_order(folder, names, everything):
            sets[factor] = paths
    return sets


def scaled_size(size: Size, factor: float) -> Size:
    """``size`` divided by ``factor``, rounded to whole pixels, at least 1 x 1."""
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def capped_size(size: Size, max_image_size: int | None) -> Size:
    """``size`` shrunk so that its long side is at most ``max_image_size``; never enlarged."""
    if max_image_size is None or max(size) <= max_image_size:
        return size
    return scaled_size(size, max(size) / max_image_size)


def choose_images(
    image_sets: dict[int, list[Path]],
    full_sizes: Sequence[Size],
    downscale_factor: int | None,
    max_image_size: int | None,
) -> ImageChoice:
    """Decide which set of images to use and to which size to bring it.

    Args:
        image_sets: downscale factor -> one file per frame. Not empty.
        full_sizes: size of each frame at factor 1 as the cameras know it.
        downscale_factor: forced factor. The folder of that factor is used as it is where it exists; otherwise the
            next larger images are shrunk when loaded. Nothing is ever enlarged.
        max_image_size: without a forced factor, the largest long side; None: no limit.

    Raises:
        DataError: an image of the chosen set is missing or not an image; a factor below 1.
    """
    if downscale_factor is not None:
        return _forced(image_sets, full_sizes, downscale_factor)
    factor = _automatic_factor(image_sets, max_image_size)
    file_sizes = [image_size(path) for path in image_sets[factor]]
    sizes = [capped_size(size, max_image_size) for size in file_sizes]
    reason = "the largest there is" if max_image_size is None else f"max_image_size={max_image_size}"
    if sizes != file_sizes:
        reason = f"shrunk when loaded to a long side of {max_image_size}, see max_image_size"
    return ImageChoice(factor, image_sets[factor], file_sizes, sizes, reason)


def _automatic_factor(image_sets: dict[int, list[Path]], max_image_size: int | None) -> int:
    """The smallest images that come near the limit or exceed it, else the largest; none larger are opened."""
    for factor in sorted(image_sets, reverse=True):
        if max_image_size is not None and NEAR_THE_LIMIT * max(image_size(image_sets[factor][0])) >= max_image_size:
            return factor
    return min(image_sets)


def _forced(image_sets: dict[int, list[Path]], full_sizes: Sequence[Size], wanted: int) -> ImageChoice:
    """The choice for a downscale factor that the user asks for."""
    if wanted < 1:
        raise DataError(f"downscale_factor is {wanted}; it must be 1 (full resolution) or larger.")
    larger = [factor for factor in image_sets if factor <= wanted]
    factor = max(larger) if larger else min(image_sets)
    file_sizes = [image_size(path) for path in image_sets[factor]]
    sizes, reason = file_sizes, f"downscale_factor={wanted}"
    if not larger:
        reason = f"the largest there is; downscale_factor={wanted} would enlarge it"
    elif factor != wanted:
        reason = f"shrunk when loaded, downscale_factor={wanted} and there is no images_{wanted}"
        targets = [scaled_size(full_size, wanted) for full_size in full_sizes]
        sizes = [
            target if target[0] <= size[0] and target[1] <= size[1] else size
            for target, size in zip(targets, file_sizes, strict=True)
        ]
    return ImageChoice(factor, image_sets[factor], file_sizes, sizes, reason)


def check_aspect(file_size: Size, camera_size: Size, path: Path) -> None:
    """DataError when an image file is not a scaled copy of the photograph that its camera was calibrated for."""
    width, height = file_size
    expected = width * camera_size[1] / camera_size[0]
    # A downscaled size is rounded in both directions, so one pixel of slack per axis, and a percent for odd tools.
    slack = 1.0 + camera_size[1] / camera_size[0] + 0.01 * height
    if abs(expected - height) > slack:
        turned = abs(height * camera_size[1] / camera_size[0] - width) < slack
        hint = " It looks rotated by 90 degrees." if turned else ""
        if turned and exif_orientation(path) > 4:
            hint += " Its EXIF orientation says so, too: store the turned pixels ('mogrify -auto-orient')."
        raise DataError(
            f"The image {path} is {width}x{height}, but its camera was calibrated for "
            f"{camera_size[0]}x{camera_size[1]}, which has another shape.{hint} Use the images that the camera poses "
            "were computed from."
        )


def downscaled_twin(path: Path, factor: int) -> Path:
    """``masks/a.png`` -> ``masks_4/a.png`` where that file exists, else ``path`` itself (nerfstudio's layout)."""
    twin = path.parent.with_name(f"{path.parent.name}_{factor}") / path.name
    return twin if twin.is_file() else path
