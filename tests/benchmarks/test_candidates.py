"""Which rasterisers take part, and what is said about those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import _candidates
from benchmarks._candidates import Other, OurKernels, TorchLoop, known_without_cpu, resolve, usable
from benchmarks._measure import cpu_times, measure, measure_apart
from benchmarks._scene import Case, surface_scene
from benchmarks.raster import chosen_candidates
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


def test_what_is_known_is_said_in_one_line() -> None:
    assert known_without_cpu(lambda name: None) == "not installed: gsplat, taichi_splatting, opensplat"
    line = known_without_cpu(lambda name: name if name == "gsplat" else None)
    assert line.startswith("gsplat is installed, but its kernels are CUDA alone")


def test_the_command_line_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_candidates, "KNOWN", {"no_such_module": "a reason"})
    kept, reasons = chosen_candidates("best", [])
    assert [candidate.name for candidate in kept if "2DGS" not in candidate.name] == [
        f"ours, {runnable_variants()[0]}",
        "PyTorch loop",
    ]
    assert "no other CPU rasteriser to compare with (not installed: no_such_module)" in reasons[-1]
    kept, reasons = chosen_candidates("best", [SEAM])
    assert kept[-1].name == SEAM and not any("no other CPU rasteriser" in reason for reason in reasons)


def test_a_case_is_timed_in_all_its_parts() -> None:
    timing = measure(OurKernels(runnable_variants()[0]), Case(40, 16))
    assert min(timing.forward, timing.forward_backward, timing.step, timing.best_step) > 0
    assert timing.best_step <= timing.step and timing.memory_mb >= 0


def test_repeats_and_warm_up_are_as_many_as_asked_for() -> None:
    calls: list[int] = []
    median, best = cpu_times(lambda: calls.append(1), repeats=4, warm_up=2)
    assert len(calls) == 6 and 0 <= best <= median


@pytest.mark.slow
def test_a_case_that_fails_says_why_and_ends_nothing() -> None:
    timing = measure_apart(Other("os:abort"), Case(10, 16), threads=1)
    assert isinstance(timing, str) and "TypeError" in timing
    timing = measure_apart(Other(f"{__name__}:ends_the_process"), Case(10, 16), threads=1)
    assert isinstance(timing, str) and "exit code 3" in timing
