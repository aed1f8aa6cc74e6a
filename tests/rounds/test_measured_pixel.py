"""The pixel that originals tell: known filters are found back, and photographs come out of renders by it."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from closeup_ns.data.originals import Original
from closeup_ns.model.kernel import PixelKernel
from closeup_ns.reading import checked
from closeup_ns.report.facts import Kernel
from closeup_ns.report.write import _kernel
from closeup_ns.rounds.measured_pixel import REACH, Pair, fit_taps, measure_pixel, pixels
from closeup_ns.rounds.settings import RoundSettings
from closeup_ns.views.lens import Lens
from closeup_ns.views.psnr import psnr
from closeup_ns.views.view import View

WIDTH, HEIGHT, FINER = 60, 44, 4
"""Of the photograph, and how many times finer its original is."""


def noise(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height, width, 3, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(-0.1, 0.2), min_size=1, max_size=2 * REACH), st.integers(0, 99))
def test_a_known_filter_is_found_back_whatever_hides_a_part(tail: list[float], seed: int) -> None:
    taps = [1 - 2 * sum(tail), *tail]
    fine = noise(80, 96, seed)
    photograph = pixels(fine, taps, 2)
    counted = torch.zeros(40, 48, dtype=torch.bool)
    counted[REACH:-REACH, REACH:-REACH] = True
    counted[10:20, 8:30] = False
    photograph[12:18, 10:28] = 5.0  # hidden
    found = fit_taps([Pair(fine, photograph, counted)], 2)
    assert found[: len(taps)] == pytest.approx(taps, abs=1e-5)
    assert psnr(pixels(fine, found, 2), photograph, counted) > 90


@functools.cache
def scene(per_pixel: int) -> np.ndarray:
    """A picture of much detail at ``per_pixel`` samples of each of the photograph's pixels, in [0, 1]."""
    generator, size = np.random.default_rng(0), (HEIGHT * 16, WIDTH * 16, 3)
    base = np.sum([gaussian_filter(generator.standard_normal(size), (s, s, 0)) * s for s in (6, 12, 30)], axis=0)
    base = (base - base.min()) / (base.max() - base.min())
    block = 16 // per_pixel
    return base[block // 2 :: block, block // 2 :: block] if block > 1 else base


def run_of_one_photograph(folder: Path) -> Any:
    """A photograph made by Lanczos from an original whose pixels a camera blurs by 0.6 px^2 and averages."""
    block = 16 // FINER
    blurred = gaussian_filter(scene(16), (0.6**0.5 * block, 0.6**0.5 * block, 0))
    camera = blurred.reshape(HEIGHT * FINER, block, WIDTH * FINER, block, 3).mean((1, 3))
    original = Image.fromarray((camera * 255).round().astype(np.uint8))
    original.save(folder / "a.png")
    small = original.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    K = torch.tensor([[50.0, 0, WIDTH / 2], [0, 50, HEIGHT / 2], [0, 0, 1]])
    rows = tuple(tuple(row) for row in (K * torch.tensor([[FINER], [FINER], [1.0]])).tolist())
    path = folder / "a.png"
    known = Original(path, path, original.size, rows, Lens(), None, float(FINER))  # type: ignore[arg-type]
    return SimpleNamespace(
        settings=RoundSettings(),
        model=SimpleNamespace(config=SimpleNamespace(supersample=2, eps2d=0.1)),
        photographs=SimpleNamespace(
            originals=lambda: [known, None],
            train_view=lambda index: View(K, torch.eye(4), WIDTH, HEIGHT),
            photograph=lambda index: torch.from_numpy(np.asarray(small).copy()).float() / 255,
            shown=lambda index: None,
            before_background=lambda image: image.float() / 255,
        ),
    )


def test_what_a_model_renders_becomes_the_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Better than by any Gaussian: the ideal render is the scene itself, widened and sampled twice per pixel."""
    run = run_of_one_photograph(tmp_path)
    kernel = measure_pixel(run)
    assert kernel is not None and (kernel.eps2d, kernel.supersample) == (0.1, 2)
    # As the run's page says it, and ns-eval under kernel_variance.
    said = f"variance {kernel.variance:.3f} px²"
    assert f"Pixel kernel: {said}, measured on 1 originals" in " ".join(capsys.readouterr().out.split())
    assert _kernel(checked(Kernel, asdict(kernel), "", "")) == f"{said}, measured on the originals, 2 x supersampled"
    photograph, inner = run.photographs.photograph(0), torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inner[4:-4, 4:-4] = True

    def through(pixel: PixelKernel) -> float:
        sigma = 8 * pixel.eps2d**0.5  # of 16 samples to a pixel
        widened = gaussian_filter(scene(16), (sigma, sigma, 0))
        samples = torch.from_numpy((widened[3::8, 3::8] + widened[4::8, 4::8]) / 2).float()
        image, _ = pixel.gather(samples, torch.ones(*samples.shape[:2], 1))
        return psnr(image, photograph, inner)

    best = max(through(PixelKernel.of(variance, 2, 0.1)) for variance in (0.03, 0.06, 0.1, 0.15, 0.2, 0.3))
    assert through(kernel) > best + 3


@pytest.mark.parametrize(
    ("change", "tried"),
    [
        (lambda run: setattr(run.settings.originals, "enabled", False), False),
        (lambda run: setattr(run.settings.kernel_search, "enabled", False), False),
        (lambda run: setattr(run.model.config, "supersample", FINER + 1), False),
        (lambda run: run.photographs.originals()[0].path.write_bytes(b"damaged"), True),
        (lambda run: Image.fromarray((scene(FINER)[::-1] * 255).astype(np.uint8)).save(tmp_of(run)), True),
        (lambda run: setattr(run.photographs, "shown", lambda index: torch.zeros(HEIGHT, WIDTH).bool()), True),
    ],
    ids=["no originals", "no search", "not fine enough", "damaged", "another picture", "nothing counts"],
)
def test_without_an_original_that_shows_it_nothing_is_measured(
    tmp_path: Path, change: Any, tried: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of_one_photograph(tmp_path)
    change(run)
    assert measure_pixel(run) is None
    assert ("Pixel kernel: not measured" in capsys.readouterr().out) == tried


def tmp_of(run: Any) -> Path:
    return run.photographs.originals()[0].path
