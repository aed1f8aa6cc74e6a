"""Counted pairs against brute force, and the arithmetic of shares."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks._scene import Case
from benchmarks._work import Work, backward_flops, count_work, forward_flops
from benchmarks.raster import Candidate, OurKernels, Results, Timing, TorchLoop, markdown, ratios, summary
from closeup_ns.rendering.reference.gaussians import rasterize_reference
from closeup_ns.rendering.request import RasterRequest
from tests.rendering.scenes import make_request


def brute_force(request: RasterRequest) -> Work:
    """Every Gaussian at every pixel, all at once, from the reference's projection."""
    _, _, info = rasterize_reference(request)
    order = torch.argsort(info["depths"][0], stable=True)
    order = order[info["radii"][0][order] > 0]
    means, conics, opacities = (info[name][0][order] for name in ("means2d", "conics", "opacities"))
    y, x = torch.meshgrid(torch.arange(request.height) + 0.5, torch.arange(request.width) + 0.5, indexing="ij")
    dx, dy = means[:, 0, None, None] - x, means[:, 1, None, None] - y
    a, b, c = conics.T[..., None, None]
    alpha = opacities[:, None, None] * torch.exp(-0.5 * (a * dx**2 + c * dy**2) - b * dx * dy)
    alpha = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.999), 0.0)
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    blocks = torch.nn.functional.pad(alpha > 0, (0, -request.width % 4, 0, -request.height % 4))
    is_open = torch.nn.functional.pad(before > 1e-4, (0, -request.width % 4, 0, -request.height % 4))

    def any_of_block(mask: torch.Tensor) -> torch.Tensor:
        return mask.unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).any(-1).any(2)

    pairs = ((alpha > 0) & (after > 1e-4)).sum()
    return Work(int(pairs), int((any_of_block(blocks) & any_of_block(is_open)).sum()))


@pytest.mark.parametrize("opacity", [None, 0.98], ids=["mixed", "opaque, so that pixels are finished early"])
def test_pairs_and_entries_are_those_of_brute_force(opacity: float | None) -> None:
    """45 x 37 pixels: no multiple of a block. Rounding may move a pair over a threshold, rarely."""
    request = make_request(300, torch.Generator().manual_seed(3))
    if opacity is not None:
        request = replace(request, opacities=torch.full_like(request.opacities, opacity))
    counted, expected = count_work(request), brute_force(request)
    assert expected.pairs > 5000
    assert counted.pairs == pytest.approx(expected.pairs, rel=3e-4)
    assert counted.entries == pytest.approx(expected.entries, rel=3e-4)
    assert 0 < counted.occupancy <= 1


def test_one_gaussian_covers_the_pixels_of_its_disc() -> None:
    """Isotropic, variance s^2 + eps2d in pixels: the disc where o exp(-r^2 / 2 s^2) >= 1/255, pixel by pixel."""
    request = make_request(1, torch.Generator().manual_seed(0), width=64, height=64)
    scale = torch.tensor([[0.2, 0.2, 0.2]])
    request = replace(
        request, means=torch.zeros(1, 3), scales=scale, opacities=torch.tensor([0.5]), viewmats=torch.eye(4)[None],
        Ks=torch.tensor([[[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]]),
    )  # fmt: skip
    request.viewmats[0, 2, 3] = 3.0
    variance = (60 * 0.2 / 3) ** 2 + 0.3
    y, x = torch.meshgrid(torch.arange(64) + 0.5 - 32, torch.arange(64) + 0.5 - 32, indexing="ij")
    expected = int((0.5 * torch.exp(-(x**2 + y**2) / (2 * variance)) >= 1 / 255).sum())
    assert count_work(request).pairs == expected


def made_up_results() -> tuple[Results, list[Candidate]]:
    """Round figures: 1 M pairs, 10 ms forward, 20 both ways, a peak of 340 GFLOP/s."""
    ours, loop, case = OurKernels("avx2"), TorchLoop(), Case(100_000, 512)
    timings = {("ours, avx2", case): Timing(10, 20, 30, 25, 64), (loop.name, case): Timing(900, 1900, 2000, 2000, 640)}
    return Results(timings, {case: Work(1_000_000, 125_000)}, {"avx2": 340e9}), [ours, loop]


def test_the_share_is_useful_operations_over_what_the_core_could_have_done() -> None:
    results, (ours, loop) = made_up_results()
    assert results.shares(loop, Case(100_000, 512)) is None
    shares = results.shares(ours, Case(100_000, 512))
    assert shares == pytest.approx((1e6 * 34 / (340e9 * 0.010), 1e6 * (34 + 62) / (340e9 * 0.020)))
    assert (forward_flops(4), backward_flops(4, True), backward_flops(4, False)) == (34, 62, 54)


def test_the_report_names_ratios_aims_and_the_machine() -> None:
    results, candidates = made_up_results()
    assert ratios(results, candidates) == [
        "100,000 at 512x512: PyTorch loop takes 90.0 times ours forward, 95.0 both ways; aim 80"
    ]
    notes = summary(results, candidates)
    assert any("50% of the lanes" in note for note in notes)
    text = markdown(results, candidates, "a machine", notes)
    assert "| 100,000 at 512x512 | ours, avx2 | 10.0 | 20.0 | 30.0 | 1% / 1% | 64 MB |" in text
    assert text.startswith("a machine\n") and all(f"* {note}" in text for note in notes)
