"""A round's native views on disk: PNG files, and a nerfstudio ``transforms.json`` that is written last.

rounds/round_1/native/images/IMG_4026.png     the crop's pixels, as they are trained on
rounds/round_1/native/masks/IMG_4026.png      only where the photograph has a mask
rounds/round_1/native/transforms.json         cameras; the views count from the moment it is there
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from closeup_ns.data.capture import safe_path
from closeup_ns.data.dataset import decode_image, decode_mask
from closeup_ns.data.frames import write_transforms
from closeup_ns.data.pictures import write_picture
from closeup_ns.errors import RoundStorageError
from closeup_ns.reading import reading
from closeup_ns.rounds.store import layout
from closeup_ns.rounds.views import NativeView
from closeup_ns.views.view import View

CACHE_BYTES = 2 << 30
"""Pixels kept in memory; beyond it the views used longest ago are read from disk again."""


@dataclass(frozen=True, eq=False)
class CutView:
    """A crop with its pixels, before it is stored."""

    photograph: str
    """The photograph's name in the data set."""
    name: str
    """What its files are called, without suffix; unique within a round."""
    view: View
    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    spacing: float
    """As `NativeView.spacing`."""


class NativeStore:
    """The native views of a run's rounds. ``root`` is the run's ``rounds`` folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cache: OrderedDict[Path, tuple[Tensor, Tensor | None]] = OrderedDict()
        self._bytes = 0

    def has(self, number: int) -> bool:
        """Whether round ``number``'s views are all there."""
        return (self._folder(number) / "transforms.json").exists()

    def save(self, number: int, views: Iterable[CutView]) -> None:
        """Write the views of round ``number`` one by one. Nothing counts before all are there.

        Raises:
            DiskError: the folder cannot be written.
        """
        folder, frames = self._folder(number), []
        for cut in views:
            image, mask = f"images/{cut.name}.png", f"masks/{cut.name}.png"
            keys = {"file_path": image, "photograph": cut.photograph, "spacing": cut.spacing}
            write_picture(folder / image, cut.pixels, compress_level=1)
            if cut.mask is not None:
                keys["mask_path"] = mask
                write_picture(folder / mask, torch.from_numpy(cut.mask))
            frames.append((keys, cut.view))
        write_transforms(folder / "transforms.json", frames, orientation_override="none")

    def load(self, number: int, names: Sequence[str]) -> list[NativeView]:
        """The views of round ``number``, none where none were cut; their pixels are read when they are first used.

        Args:
            names: of the training photographs, in index order.

        Raises:
            RoundStorageError: the list of views is damaged or belongs to other photographs.
        """
        path = self._folder(number) / "transforms.json"
        index = {name: position for position, name in enumerate(names)}
        content = layout.load(path, layout.NATIVE) or {"frames": []}
        with reading(path, layout.NATIVE.remedy, RoundStorageError):
            return [self._view(number, frame, index[frame["photograph"]]) for frame in content["frames"]]

    def _view(self, number: int, frame: dict[str, Any], photograph: int) -> NativeView:
        view, folder = layout.view_of_frame(frame), self._folder(number)
        image = safe_path(folder, frame["file_path"], "transforms.json")
        mask = safe_path(folder, frame["mask_path"], "transforms.json") if "mask_path" in frame else None
        read, spacing = partial(self._read, image, mask), float(frame["spacing"])
        return NativeView(f"native{number}/{image.stem}", number, photograph, view, spacing, read)

    def _read(self, image: Path, mask: Path | None) -> tuple[UInt8[Tensor, "H W C"], Bool[Tensor, "H W"] | None]:
        if image in self._cache:
            self._cache.move_to_end(image)
            return self._cache[image]
        pixels = torch.from_numpy(decode_image(image))
        counted = None if mask is None else torch.from_numpy(decode_mask(mask) > 0)
        self._cache[image] = (pixels, counted)
        self._bytes += pixels.numel()
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, (oldest, _) = self._cache.popitem(last=False)
            self._bytes -= oldest.numel()
        return pixels, counted

    def _folder(self, number: int) -> Path:
        return self.root / f"round_{number}" / "native"
