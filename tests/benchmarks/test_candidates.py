"""Which rasterisers take part, and what is said about those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks._candidates import Other, OurKernels, TorchLoop, usable
from benchmarks._measure import Timing, measure, measure_apart
from benchmarks._scene import RenderSize, surface_scene
from benchmarks.raster import chosen_candidates, ratios, row
from closeup_ns.rendering.build import runnable_variants

SEAM = "closeup_ns.rendering.rasterize:rasterization"


def broken(**_arguments: Any) -> None:
    """A foreign rasteriser that does not work here."""
    raise OSError("no such library\nand a second line")


def ends_the_process(**arguments: Any) -> None:
    """One that takes its process down on anything but the first small trial."""
    raise SystemExit(3)


def test_anything_with_the_same_call_takes_part() -> None:
    other, request = Other(SEAM), surface_scene(50, 32)
    assert other.available() == (True, "")
    assert torch.equal(other.render(request), OurKernels(runnable_variants()[0]).render(request))
    assert torch.allclose(other.render(request), TorchLoop().render(request), atol=1e-4)


def test_what_cannot_run_is_left_out_with_its_reason() -> None:
    candidates = [
        OurKernels("avx1024"),
        Other("no_such_module:f"),
        Other("torch"),
        Other("math:"),
        Other(f"{__name__}:broken"),
        TorchLoop(),
    ]
    kept, reasons = usable(candidates)
    assert kept == [TorchLoop()]
    assert "cannot run the avx1024 kernels" in reasons[0]
    assert "No module named 'no_such_module'" in reasons[1]
    assert "write module:function" in reasons[2] and "write module:function" in reasons[3]
    assert reasons[4].endswith("OSError: no such library")


def test_the_command_line_chooses() -> None:
    kept, reasons = chosen_candidates("best", [SEAM])
    names = [f"ours, {runnable_variants()[0]}", "ours, 2DGS", "PyTorch loop", SEAM]
    assert [candidate.name for candidate in kept] == names and reasons == []


def test_ratios_are_told_beside_their_aims() -> None:
    ours, loop, size = OurKernels("avx2"), TorchLoop(), RenderSize(100_000, 512)
    timings = {(ours.name, size): Timing(10, 20, 30, 25, 64), (loop.name, size): Timing(900, 1900, 2000, 2000, 640)}
    told = "100,000 at 512x512: PyTorch loop takes 90.0 times ours forward, 95.0 both ways; aim 80"
    assert ratios(timings, [ours, loop]) == [told]
    assert row(ours.name, size, timings[ours.name, size]) == (
        "| 100,000 at 512x512 | ours, avx2 | 10.0 | 20.0 | 30.0 | 64 MB |"
    )


def test_sizes_are_read_and_what_is_none_is_named() -> None:
    assert RenderSize.parse("20000x256") == RenderSize(20_000, 256)
    assert RenderSize.parse("1Mx1024") == RenderSize(1_000_000, 1024)
    for text in ("20000", "20kx", "20k256"):
        with pytest.raises(ValueError, match="is no size"):
            RenderSize.parse(text)


def test_a_size_is_timed_in_all_its_parts() -> None:
    timing = measure(OurKernels(runnable_variants()[0]), RenderSize(40, 16))
    assert min(timing.forward, timing.forward_backward, timing.step, timing.best_step) > 0
    assert timing.best_step <= timing.step and timing.memory_mb >= 0


@pytest.mark.slow
def test_a_size_that_fails_says_why_and_ends_nothing() -> None:
    timing = measure_apart(Other("os:abort"), RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "TypeError" in timing
    timing = measure_apart(Other(f"{__name__}:ends_the_process"), RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "exit code 3" in timing
