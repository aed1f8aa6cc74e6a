"""The mask that a latent generator sees, against its definition pixel by pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from closeup_ns.refine.imaging.filters import opened
from closeup_ns.refine.see3d.joint import known_latent_pixels, mask_picture


def patches(seed: int, rows: int, columns: int, side: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 2 * rows, 2 * columns, generator=generator) < 0.85
    return F.interpolate(coarse.float(), (rows * side, columns * side))[0, 0] > 0.5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 8]))
def test_a_latent_pixel_is_known_only_when_its_whole_block_is(seed: int, rows: int, columns: int, size: int) -> None:
    known = patches(seed, rows, columns)
    latent = known_latent_pixels(known, size)
    for top in range(0, known.shape[0], size):
        for left in range(0, known.shape[1], size):
            block = slice(top, top + size), slice(left, left + size)
            assert latent[block].all() if known[block].all() else not latent[block].any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 9), st.integers(1, 9))
def test_the_mask_is_opened_first_and_shrinks_alike_in_any_mode(seed: int, rows: int, columns: int) -> None:
    known = patches(seed, rows, columns)
    _, mask = mask_picture(torch.rand(3, *known.shape), known, "render")
    assert torch.equal(mask, known_latent_pixels(opened(known)))
    shrunk = [mask[offset::8, offset::8] for offset in range(8)]
    assert all(torch.equal(shrunk[0], other) for other in shrunk)
    assert torch.equal(F.avg_pool2d(mask.float()[None], 8)[0] > 0.9, shrunk[0])


def test_a_thread_makes_no_latent_pixel_known() -> None:
    known = torch.zeros(16, 64, dtype=torch.bool)
    known[:8] = True
    known[12:14] = True
    assert mask_picture(torch.rand(3, 16, 64), known, "render")[1].float().sum() == 8 * 64
    assert not mask_picture(torch.rand(3, 16, 64), known & (torch.arange(64) % 8 != 3), "black")[1].any()
    shown, _ = mask_picture(torch.rand(3, 16, 64) + 0.1, known, "black")
    assert shown[:, :8].all() and not shown[:, 8:].any(), "nor is it shown"
