"""Photographs as the datamanager loads them: at the size that the dataparser chose, with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import ImageOps

from closeup_ns.data.images import open_image
from closeup_ns.errors import DataError

EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


class CloseupDataset(InputDataset):
    """nerfstudio's InputDataset, with images and masks brought to the size of their camera when they are loaded."""

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        # Copied, because the datamanager overwrites the cameras' sizes when it undistorts and crops the images.
        widths, heights = self.cameras.width.flatten().tolist(), self.cameras.height.flatten().tolist()
        self.sizes: list[tuple[int, int]] = list(zip(widths, heights, strict=True))

    def get_numpy_image(self, image_idx: int) -> npt.NDArray[np.uint8]:
        """The image [H, W, 3 or 4] uint8 at its camera's size. DataError, with the file's name, when it is broken.

        Shrinking averages over each new pixel's area (cv2.INTER_AREA), which is what a coarser sensor would have seen.
        """
        path = self.image_filenames[image_idx]
        pixels = decode_image(path)
        width, height = self.sizes[image_idx]
        if pixels.shape[:2] == (height, width):
            return pixels
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)

    def get_mask(self, image_idx: int) -> torch.Tensor | None:
        """The mask [H, W, 1] bool at the camera's size, True where the pixel counts; None without masks.

        The mask is shrunk as the photograph is, and a pixel counts where nothing hidden is averaged into it. Where the
        photograph will be undistorted, which reads between pixels, those beside a hidden one do not count either.
        """
        if self._dataparser_outputs.mask_filenames is None:
            return None
        counts = decode_mask(self._dataparser_outputs.mask_filenames[image_idx])
        width, height = self.sizes[image_idx]
        if counts.shape != (height, width):
            counts = cv2.resize(counts, (width, height), interpolation=cv2.INTER_AREA)
        counts = (counts == 255).astype(np.uint8)
        distortion = self.cameras.distortion_params
        if distortion is not None and distortion[image_idx].any():
            counts = cv2.erode(counts, np.ones((3, 3), np.uint8))
        return torch.from_numpy(counts.astype(bool))[..., None]

    def get_data(self, image_idx: int, image_type: Literal["uint8", "float32"] = "float32") -> dict[str, Any]:
        """As InputDataset.get_data, with masks of any size that has the image's shape."""
        image = self.get_image_uint8(image_idx) if image_type == "uint8" else self.get_image_float32(image_idx)
        data: dict[str, Any] = {"image_idx": image_idx, "image": image}
        mask = self.get_mask(image_idx)
        if mask is not None:
            data["mask"] = mask
        data.update(self.get_metadata(data))
        return data


def decode_mask(path: Path) -> npt.NDArray[np.uint8]:
    """A mask [H, W], 255 where a pixel counts and 0 elsewhere.

    Bright pixels count (JPEG leaves faint ones beside a mask's edge); where there are none, all that are not 0.
    """
    mask = cv2.cvtColor(decode_image(path)[..., :3], cv2.COLOR_RGB2GRAY)
    return np.where(mask > (127 if mask.max() > 127 else 0), np.uint8(255), np.uint8(0))


def decode_image(path: Path, turned: bool = False) -> npt.NDArray[np.uint8]:
    """Decode an image fully: [H, W, 3 or 4] uint8, grey repeated, of 16 bits the upper 8.

    Args:
        path: the file.
        turned: whether to turn it as its EXIF data says.
    """
    with open_image(path) as image:
        if turned:
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):
            return np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        if image.mode not in EIGHT_BIT_MODES:
            raise DataError(
                f"The image {path} is of the kind {image.mode}; only 8 or 16 bits can be read. Convert the images "
                "and keep their sizes, e.g. with 'mogrify -depth 8'."
            )
        has_alpha = "A" in image.mode or "transparency" in image.info
        return np.array(image.convert("RGBA" if has_alpha else "RGB"))


def describe_masks(shares: Sequence[float], kind: str) -> str:
    """What the masks of the ``kind`` (train or eval) photographs hide, as a line for the log.

    Args:
        shares: of each photograph's pixels, how many count.

    Raises:
        DataError: nothing counts in any training photograph.
    """
    nothing, everything = sum(share == 0 for share in shares), sum(share > 0.9999 for share in shares)
    if nothing == len(shares) and kind == "train":
        raise DataError(
            f"The masks of all {nothing} training photographs hide everything, so there is nothing to train on. White "
            "must be what counts: invert the masks ('mogrify -negate') or train without them."
        )
    line = f"Masks: {sum(shares) / len(shares):.1%} of the pixels of {len(shares)} {kind} photographs count"
    if nothing:
        line += f"; {nothing} hide everything"
    if everything:
        line += f"; {everything} hide nothing"
    if everything == len(shares):
        line += ": is the mask in the alpha channel of its file? Grey values are read"
    return line + "."
