"""Originals: for each photograph that is trained on, the finest picture of it that the capture holds (issue 11.1).

Training sees photographs shrunk to what is affordable. The original is the same photograph with the pixels that the
camera recorded: from ``images/`` where ``images_8`` is trained on, or the file itself where it is shrunk when loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from closeup_ns.data.capture import Capture, Frame
from closeup_ns.data.dataset import decode_image, decode_mask
from closeup_ns.data.images import (
    ImageChoice,
    Size,
    check_aspect,
    exif_orientation,
    image_folders,
    image_size,
    list_images,
)
from closeup_ns.data.lenses import LENS_KINDS
from closeup_ns.data.names import FileLookup
from closeup_ns.errors import DataError
from closeup_ns.views.lens import Lens

Row = tuple[float, float, float]
THUMBNAIL = (64, 64)
"""Pixels at which an original is compared with its photograph to see which way up it is."""


@dataclass(frozen=True)
class Original:
    """One photograph at its finest: the file, and the camera that took it in pixels of that file."""

    path: Path
    photograph: Path
    """The file that is trained on, which may be the same."""
    size: Size
    """(width, height) in pixels, with the photograph's side up."""
    K: tuple[Row, Row, Row]
    """Intrinsics in these pixels, pixel centres at +0.5, before undistortion."""
    lens: Lens
    mask: Path | None
    """Mask of the photograph at any size, non-zero where a pixel counts."""
    finer: float
    """How many times finer than trained on, per axis."""

    def read(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
        """Decode it: pixels [H, W, 3 or 4], and the mask [h, w] at its own size where there is one.

        Where EXIF says that the stored pixels are to be turned, they are if the photograph was: most tools shrink, and
        compute poses, as stored, others turn first.

        Raises:
            DataError: a file is missing, damaged, or no longer of the size that was read from its header.
        """
        pixels = decode_image(self.path)
        if self.path != self.photograph and exif_orientation(self.path) != 1:
            pixels = min(pixels, decode_image(self.path, turned=True), key=self._difference)
        if (pixels.shape[1], pixels.shape[0]) != self.size:
            raise DataError(f"The image {self.path} has changed its size since the run started. Restore it.")
        return pixels, None if self.mask is None else decode_mask(self.mask)

    def _difference(self, pixels: npt.NDArray[np.uint8]) -> float:
        """How much the photograph looks unlike ``pixels``; infinitely where those are not of the right size."""
        if (pixels.shape[1], pixels.shape[0]) != self.size:
            return float("inf")
        both = (each[..., :3] for each in (pixels, decode_image(self.photograph)))
        return float(cv2.absdiff(*(cv2.resize(each, THUMBNAIL, interpolation=cv2.INTER_AREA) for each in both)).mean())


def find_originals(
    capture: Capture, images: ImageChoice, finest: Sequence[Path]
) -> tuple[list[Original | None], list[str]]:
    """The original of each frame, in the frames' order, and a sentence for each that cannot be used.

    Args:
        capture: the frames.
        images: what is trained on.
        finest: what `finest_files` found.

    None where there is none that is finer than what is trained on, or where it cannot be used: a missing, damaged or
    differently shaped file costs that photograph's native views only.
    """
    found: list[Original | None] = []
    problems: list[str] = []
    none_finer: list[str] = []
    for frame, path, trained, photograph in zip(capture.frames, finest, images.sizes, images.paths, strict=True):
        found.append(None)
        try:
            size = image_size(path)
            if (size[0] > size[1]) != (trained[0] > trained[1]) and exif_orientation(path) > 4:
                size = size[1], size[0]
            check_aspect(size, (frame.intrinsics.width, frame.intrinsics.height), path)
        except DataError as error:
            problems.append(f"no original for {photograph.name}: {error}")
            continue
        if size[0] > trained[0] and size[1] > trained[1]:
            found[-1] = _original(path, photograph, size, trained, frame)
        else:
            said = f"its finest picture is {path}, {size[0]}x{size[1]}: no finer than what is trained on"
            none_finer.append(f"no original for {photograph.name}: {said}")
    return found, problems + (none_finer if any(found) else [])


def _original(path: Path, photograph: Path, size: Size, trained: Size, frame: Frame) -> Original:
    k = frame.intrinsics
    sx, sy = size[0] / k.width, size[1] / k.height
    K = ((k.fx * sx, 0.0, k.cx * sx), (0.0, k.fy * sy, k.cy * sy), (0.0, 0.0, 1.0))
    lens = Lens(LENS_KINDS[k.camera_type], tuple(map(float, k.distortion)) if any(k.distortion) else ())
    return Original(path, photograph, size, K, lens, frame.mask, min(size[0] / trained[0], size[1] / trained[1]))


def describe_originals(originals: Sequence[Original | None]) -> str:
    """What was found, in one line for the log."""
    finer = sorted(original.finer for original in originals if original is not None)
    if not finer:
        return "no originals finer than the photographs trained on: close-ups have no photographed detail to learn"
    sizes = sorted({original.size for original in originals if original is not None})
    size = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} sizes"
    few = "" if len(finer) == len(originals) else f" for {len(finer)} of {len(originals)} photographs"
    return f"originals {size}{few}, {finer[len(finer) // 2]:.1f}x finer than trained on"


def finest_files(capture: Capture) -> tuple[list[Path], list[str]]:
    """The finest file of each frame, and a sentence for each folder of finer ones where nothing tells which is which.

    Complete sets of images are matched already; an incomplete folder is searched for the photographs' names.
    """
    files, problems = list(capture.image_sets[min(capture.image_sets)]), []
    folders, lookup = image_folders(capture.root), FileLookup()
    trained = next((factor for factor, folder in folders.items() if folder in files[0].parents), 1)
    for folder in [folder for factor, folder in reversed(folders.items()) if factor < trained]:
        found = [lookup.find(folder, name) for name in capture.names]
        times = Counter(found)  # a.jpg is not taken for a lost a.png
        for index, path in enumerate(found):
            files[index] = path if path and times[path] == 1 else files[index]
        lost = [name for name, path in zip(capture.names, found, strict=True) if not path or times[path] > 1]
        if any(found) and lost:
            names = ", ".join(lost[:5]) + ", ..." * (len(lost) > 5)
            problems.append(f"{folder} has no picture of {names}: the next finer one is taken there")
        if not any(found) and (pictures := list_images(folder)):
            problems.append(
                f"no originals from {folder}: it has {len(pictures)} pictures for {len(files)} photographs, and no "
                "names tell which is whose. Restore those that are missing"
            )
    return files, problems
