"""Rasterisers by their names, and what is said of their times."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from benchmarks._measure import LOOP, SURFELS, Timing, measure, measure_apart, renderer
from benchmarks._scene import RenderSize, surface_scene
from benchmarks.raster import ratios, row
from closeup_ns.errors import CloseupError
from closeup_ns.rendering.build import runnable_variants

OURS = f"ours, {runnable_variants()[0]}"
OTHER = "closeup_ns.rendering.rasterize:rasterization"


def ends_the_process(**_arguments: Any) -> None:
    """A foreign rasteriser that takes its process down."""
    os._exit(3)


def test_anything_with_the_same_call_takes_part() -> None:
    request = surface_scene(50, 32)
    ours = renderer(OURS)(request)
    assert torch.equal(renderer(OTHER)(request), ours)
    torch.testing.assert_close(renderer(LOOP)(request), ours, atol=1e-4, rtol=0)
    assert renderer(SURFELS)(request).shape == (1, 32, 32, 7)
    with pytest.raises(CloseupError, match="avx1024"):
        renderer("ours, avx1024")


def test_ratios_are_told_beside_their_aims() -> None:
    size = RenderSize(100_000, 512)
    timings = {("ours, avx2", size): Timing(10, 20, 30, 64), (LOOP, size): Timing(900, 1900, 2000, 640)}
    told = "100,000 at 512x512: PyTorch loop takes 90.0 times ours forward, 95.0 both ways; aim 80"
    assert ratios(timings, "ours, avx2") == [told]
    assert row("ours, avx2", size, timings["ours, avx2", size]) == (
        "| 100,000 at 512x512 | ours, avx2 | 10.0 | 20.0 | 30.0 | 64 MB |"
    )


@pytest.mark.parametrize(
    "text, size", [("20000x256", (20_000, 256)), ("20kx64", (20_000, 64)), ("1Mx1024", (1_000_000, 1024))]
)
def test_sizes_are_read(text: str, size: tuple[int, int]) -> None:
    assert RenderSize.parse(text) == RenderSize(*size)
    with pytest.raises(ValueError, match="is no size"):
        RenderSize.parse(text.replace("x", "y"))


def test_a_size_is_timed_in_all_its_parts() -> None:
    timing = measure(OURS, RenderSize(40, 16))
    assert min(timing.forward, timing.forward_backward, timing.step) > 0 and timing.memory_mb >= 0


@pytest.mark.slow
def test_what_fails_says_why_and_ends_nothing() -> None:
    timing = measure_apart("os:abort", RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "TypeError" in timing
    timing = measure_apart(f"{__name__}:ends_the_process", RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "terminated abruptly" in timing
