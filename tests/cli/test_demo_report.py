"""The report's figures against figures worked out by hand, and against direct formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d

from closeup_ns.cli.demo_pictures import write_comparisons, write_hero
from closeup_ns.cli.demo_report import (
    TestImage,
    bicubic_bound,
    load_tests,
    markdown_table,
    psnr,
    score,
    ssim,
    write_bicubic,
    write_renders,
    write_report,
)
from closeup_ns.data.demo_photo import PhotoModel
from closeup_ns.errors import DataError
from closeup_ns.rendering.types import Rendered
from closeup_ns.views.view import View, look_at
from tests.data.demo_small import CLOSE, small_demo


def a_view(width: int = 64, height: int = 48, distance: float = 1.0) -> View:
    K = torch.tensor([[60.0, 0, width / 2], [0, 60.0, height / 2], [0, 0, 1]], dtype=torch.float64)
    position, target, up = torch.tensor([[0.0, -distance, 0.0], [0, 0, 0], [0, 0, 1]], dtype=torch.float64).unbind()
    return look_at(position, target, up, K, width, height)


def noise_picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 5, 3), np.uint8)
    grey = black.copy()
    grey[0, 0] = 51  # one pixel of twenty off by a fifth of the range: mean squared error 0.04 / 20
    assert psnr(grey, black) == pytest.approx(10 * math.log10(20 / 0.04))
    assert psnr(black + np.uint8(255), black) == pytest.approx(0)
    assert psnr(black, black) == 100


def test_ssim_is_that_of_wang() -> None:
    """Against the defining sums, with the 11-tap Gaussian window, away from the borders as scikit-image crops them."""
    one, other = noise_picture(0), (noise_picture(0) // 2 + noise_picture(1) // 2).astype(np.uint8)
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    x, y = (torch.from_numpy(p).double().permute(2, 0, 1)[:, None] for p in (one, other))
    mx, my = conv2d(x, window), conv2d(y, window)
    vx, vy, vxy = conv2d(x * x, window) - mx**2, conv2d(y * y, window) - my**2, conv2d(x * y, window) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(one, other) == pytest.approx(float(expected), abs=1e-6)
    assert ssim(one, one) == pytest.approx(1)


def test_scores_are_means_over_the_pictures_on_disk(tmp_path: Path) -> None:
    truth = np.full((48, 64, 3), 100, np.uint8)
    tests = [TestImage(f"i{k}", scale, a_view(), truth) for k, scale in enumerate((1, 3, 3))]
    for k, error in enumerate((1, 2, 4)):
        path = tmp_path / "m" / f"i{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(truth + np.uint8(error)).save(path)
    found = score(tests, {"m": tmp_path / "m"})["m"]
    assert found["far"]["psnr"] == pytest.approx(20 * math.log10(255))
    assert found["3x"]["psnr"] == pytest.approx(20 * math.log10(255) - (20 * math.log10(2) + 20 * math.log10(4)) / 2)
    assert found["3x"]["images"]["i2"]["psnr"] == pytest.approx(20 * math.log10(255 / 4))
    write_report(tmp_path, {"m": found}, {"m": "Method"}, {"seed": 3})
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["methods"]["m"] == {"label": "Method", "scales": found} and report["seed"] == 3
    assert (tmp_path / "report.md").read_text().splitlines()[2].startswith("| Method | 48.13 / ")
    (tmp_path / "m" / "i2.png").unlink()
    with pytest.raises(DataError, match="lacks pictures of i2"):
        score(tests, {"m": tmp_path / "m"})


def test_a_picture_of_another_size_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "i.png")
    with pytest.raises(DataError, match="10x10 pixels, the truth 64x48"):
        score([TestImage("i", 1, a_view(), noise_picture(0))], {"m": tmp_path})


def test_renders_are_rounded_to_eight_bits(tmp_path: Path) -> None:
    color = torch.linspace(-0.2, 1.2, 48 * 64 * 3).reshape(48, 64, 3)
    seen: list[View] = []

    def render(view: View) -> Rendered:
        seen.append(view)
        return Rendered(color, torch.zeros(48, 64), torch.ones(48, 64))

    test = TestImage("i", 3, a_view(), noise_picture(0))
    write_renders(render, [test], tmp_path)
    written = np.asarray(Image.open(tmp_path / "i.png")).astype(int)
    assert seen == [test.view]
    assert np.abs(written - np.clip(color.numpy(), 0, 1) * 255).max() <= 0.5 + 1e-4


def test_the_bicubic_bound_keeps_what_a_far_photograph_resolves_and_nothing_finer() -> None:
    photo, x = PhotoModel(), np.arange(270)
    row = np.where(x < 135, 40, 200).astype(np.uint8)
    coarse = np.broadcast_to(row[None, :, None], (216, 270, 3)).copy()
    bound = bicubic_bound(coarse, 9, photo)
    assert bound.shape == coarse.shape
    assert np.abs(bound[:, :100].astype(int) - 40).max() <= 4 and np.abs(bound[:, 170:].astype(int) - 200).max() <= 4
    stripes = np.broadcast_to((x // 2 % 2 * 255).astype(np.uint8)[None, :, None], (216, 270, 3))
    flat = bicubic_bound(stripes, 9, photo).astype(int)
    assert np.ptp(flat[40:-40, 40:-40]) <= 3
    assert abs(flat.mean() - 188) <= 3  # half the light, not half the number: the lens works on linear light


def test_tests_are_the_held_out_photographs_and_the_truth() -> None:
    folder, scene = small_demo()
    tests = load_tests(folder)
    assert [test.scale for test in tests] == [1, 1] + [s for s in (3, 9, 27) for _ in range(CLOSE)]
    listed = json.loads((scene.capture / "transforms.json").read_text())["train_filenames"]
    assert not {f"images/{test.name}.jpg" for test in tests} & set(listed)


def test_pictures_and_table_of_a_demo(tmp_path: Path) -> None:
    folder, scene = small_demo()
    tests = load_tests(folder)
    methods = {name: tmp_path / name for name in ("ours", "bicubic")}
    write_bicubic(tests, PhotoModel(), methods["bicubic"])
    for test in tests:
        methods["ours"].mkdir(exist_ok=True)
        Image.fromarray(test.truth).save(methods["ours"] / f"{test.name}.png")
    table = markdown_table(score(tests, methods), {"ours": "perfect"}).splitlines()
    assert table[0] == "| PSNR (dB) / SSIM | far | 3x | 9x | 27x |"
    assert table[2] == "| perfect | " + " | ".join(["100.00 / 1.000"] * 4) + " |"
    assert table[3].startswith("| bicubic | - | ")
    written = write_comparisons(tests, methods, {}, tmp_path / "pictures")
    assert [path.name for path in written] == ["far.png", "3x.png", "9x.png", "27x.png"]
    write_hero(tests, methods, {}, scene.target, tmp_path / "hero.png")
    hero = Image.open(tmp_path / "hero.png")
    assert hero.width > 1.5 * hero.height
    colours = set(map(tuple, np.asarray(hero).reshape(-1, 3)))
    assert {(255, 196, 0), (255, 110, 40), (255, 40, 90)} <= colours  # a frame per scale, inside the far photograph
