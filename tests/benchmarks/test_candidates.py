"""Which rasterisers take part, and what is said about those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks._candidates import Other, OurKernels, TorchLoop, resolve, usable
from benchmarks._measure import Timing, cpu_times, measure, measure_apart
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
        Other(f"{__name__}:broken"),
        TorchLoop(),
    ]
    kept, reasons = usable(candidates)
    assert kept == [TorchLoop()]
    assert "cannot run the avx1024 kernels" in reasons[0]
    assert "No module named 'no_such_module'" in reasons[1]
    assert "write module:function" in reasons[2]
    assert reasons[3].endswith("OSError: no such library")


def test_a_name_without_a_function_is_refused() -> None:
    with pytest.raises(ValueError, match="write module:function"):
        resolve("math:")


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


@pytest.mark.parametrize("text, size", [("20000x256", (20_000, 256)), ("20kx64", (20_000, 64)),
                                        ("1Mx1024", (1_000_000, 1024)), ("0x0", (0, 0))])  # fmt: skip
def test_sizes_are_read(text: str, size: tuple[int, int]) -> None:
    assert RenderSize.parse(text) == RenderSize(*size)


@pytest.mark.parametrize("text", ["20000", "x256", "20kx", "axb", "20k256", "-1x5"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        RenderSize.parse(text)


def test_a_case_is_timed_in_all_its_parts() -> None:
    timing = measure(OurKernels(runnable_variants()[0]), RenderSize(40, 16))
    assert min(timing.forward, timing.forward_backward, timing.step, timing.best_step) > 0
    assert timing.best_step <= timing.step and timing.memory_mb >= 0


def test_repeats_and_warm_up_are_as_many_as_asked_for() -> None:
    calls: list[int] = []
    median, best = cpu_times(lambda: calls.append(1), repeats=4, warm_up=2)
    assert len(calls) == 6 and 0 <= best <= median


@pytest.mark.slow
def test_a_case_that_fails_says_why_and_ends_nothing() -> None:
    timing = measure_apart(Other("os:abort"), RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "TypeError" in timing
    timing = measure_apart(Other(f"{__name__}:ends_the_process"), RenderSize(10, 16), threads=1)
    assert isinstance(timing, str) and "exit code 3" in timing
