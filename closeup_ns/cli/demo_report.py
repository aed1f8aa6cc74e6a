"""How close several models come to the truth: PSNR and SSIM per scale, computed from the pictures on disk.

A method here is a folder of pictures named like the test images; nothing in this module knows how they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from closeup_ns.atomic import atomic_path, write_json
from closeup_ns.data.demo_photo import PhotoModel
from closeup_ns.data.demo_render import linear_to_srgb, srgb_to_linear
from closeup_ns.data.demo_write import read_truth, read_views
from closeup_ns.errors import DataError
from closeup_ns.rendering.types import Renderer
from closeup_ns.views.view import View

Picture = NDArray[np.uint8]

BICUBIC = "bicubic"
"""The method that only enlarges: the truth reduced to what a far photograph holds of it, then bicubic."""
_IDENTICAL_PSNR = 100.0


@dataclass(frozen=True, eq=False)
class TestImage:
    """A camera that no training saw, and what it really sees."""

    __test__ = False

    name: str
    """Names the pictures that the methods make of it."""
    scale: int
    """How many times nearer than the far photographs; 1 for a held-out far photograph."""
    view: View
    """In the frame of the capture's transforms.json."""
    truth: Picture
    """uint8 [H, W, 3]."""


def scale_label(scale: int) -> str:
    """Name of a scale: far, 3x, 9x, ..."""
    return "far" if scale == 1 else f"{scale}x"


def read_picture(path: Path) -> Picture:
    """An image file as uint8 [H, W, 3].

    Raises:
        DataError: it is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as problem:
        raise DataError(
            f"cannot read the picture {path} ({problem}); remove it and run closeup-gs demo again"
        ) from problem


def load_tests(folder: Path) -> list[TestImage]:
    """Held-out far photographs and true close-ups of a demo scene (`write_demo_scene`), far ones first."""
    capture = folder / "capture"
    listed = set(json.loads((capture / "transforms.json").read_text(encoding="utf8"))["test_filenames"])
    tests = [
        TestImage(Path(frame["file_path"]).stem, 1, view, read_picture(capture / frame["file_path"]))
        for frame, view in read_views(capture)
        if frame["file_path"] in listed
    ]
    close = [TestImage(t.name, t.scale, t.view, read_picture(t.image_path)) for t in read_truth(folder / "truth")]
    return tests + close


def write_renders(render: Renderer, tests: Sequence[TestImage], folder: Path) -> None:
    """Render every test view into ``folder``/NAME.png, 8 bits. ``render`` takes views in the frame of the capture."""
    for test in tests:
        color = render(test.view).color.detach().cpu().double().clamp(0, 1).numpy()
        _write_picture(folder / f"{test.name}.png", (color * 255 + 0.5).astype(np.uint8))


def write_bicubic(tests: Sequence[TestImage], photo: PhotoModel, folder: Path) -> None:
    """The bicubic bound of every close-up as ``folder``/NAME.png. A far view has none."""
    for test in tests:
        if test.scale > 1:
            _write_picture(folder / f"{test.name}.png", bicubic_bound(test.truth, test.scale, photo))


def bicubic_bound(truth: Picture, scale: int, photo: PhotoModel) -> Picture:
    """What one ideal, noiseless far photograph knows of a close-up, enlarged to its size.

    The truth is blurred by the lens as it would be from ``scale`` times further away (in linear light), reduced by
    ``scale`` as the camera's photographs are (Lanczos, antialiased), rounded to 8 bits and enlarged bicubically.
    """
    sigma = photo.lens_sigma / photo.reduction * scale
    linear = srgb_to_linear(truth.astype(np.float32) / 255)
    blurred = gaussian_filter(linear, (sigma, sigma, 0), mode="reflect")
    encoded = Image.fromarray((linear_to_srgb(blurred.astype(np.float32)) * 255 + 0.5).astype(np.uint8))
    small = (max(1, round(encoded.width / scale)), max(1, round(encoded.height / scale)))
    reduced = encoded.resize(small, Image.Resampling.LANCZOS)
    return np.asarray(reduced.resize(encoded.size, Image.Resampling.BICUBIC))


def psnr(picture: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, peak 255; 100 where the two are identical."""
    error = float(np.mean((picture.astype(np.float64) - truth.astype(np.float64)) ** 2))
    return _IDENTICAL_PSNR if error == 0 else min(_IDENTICAL_PSNR, float(10 * np.log10(255.0**2 / error)))


def ssim(picture: Picture, truth: Picture) -> float:
    """Structural similarity of Wang et al. (2004): Gaussian window of sigma 1.5, mean over pixels and channels."""
    similarity: Any = structural_similarity(
        picture, truth, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return float(similarity)


def score(tests: Sequence[TestImage], methods: Mapping[str, Path]) -> dict[str, Any]:
    """Method -> scale ("far", "3x", ...) -> mean psnr and ssim, and both per image.

    A method without a picture for any image of a scale (the bicubic bound of far views) has no entry for that scale.

    Raises:
        DataError: a method has pictures for some images of a scale only, or one of another size than the truth.
    """
    scores: dict[str, Any] = {}
    for method, folder in methods.items():
        scores[method] = {}
        for scale in sorted({test.scale for test in tests}):
            members = [test for test in tests if test.scale == scale]
            images = {test.name: _compare(folder / f"{test.name}.png", test) for test in members if _has(folder, test)}
            if not images:
                continue
            if len(images) < len(members):
                missing = sorted({test.name for test in members} - images.keys())
                raise DataError(f"{folder} lacks pictures of {', '.join(missing)}; run closeup-gs demo again")
            means = {key: float(np.mean([image[key] for image in images.values()])) for key in ("psnr", "ssim")}
            scores[method][scale_label(scale)] = {**means, "images": images}
    return scores


def write_report(folder: Path, scores: Mapping[str, Any], labels: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Write report.json (all figures) and report.md (the table) into ``folder``."""
    methods = {name: {"label": labels.get(name, name), "scales": scales} for name, scales in scores.items()}
    write_json(folder / "report.json", {**about, "methods": methods})
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(markdown_table(scores, labels), encoding="utf8")


def table_rows(scores: Mapping[str, Any], labels: Mapping[str, str]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table that people read: one method per row, "PSNR / SSIM" per scale."""
    scales = list(dict.fromkeys(scale for entry in scores.values() for scale in entry))
    scales.sort(key=lambda scale: 1 if scale == "far" else int(scale.removesuffix("x")))
    rows = [
        [labels.get(name, name)]
        + [f"{entry[s]['psnr']:.2f} / {entry[s]['ssim']:.3f}" if s in entry else "-" for s in scales]
        for name, entry in scores.items()
    ]
    return ["PSNR (dB) / SSIM", *scales], rows


def markdown_table(scores: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """`table_rows` as Markdown."""
    head, rows = table_rows(scores, labels)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _has(folder: Path, test: TestImage) -> bool:
    return (folder / f"{test.name}.png").is_file()


def _compare(path: Path, test: TestImage) -> dict[str, float]:
    picture = read_picture(path)
    if picture.shape != test.truth.shape:
        (h, w), (height, width) = picture.shape[:2], test.truth.shape[:2]
        raise DataError(f"{path} is {w}x{h} pixels, the truth {width}x{height}")
    return {"psnr": psnr(picture, test.truth), "ssim": ssim(picture, test.truth)}


def _write_picture(path: Path, picture: Picture) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
